"""What an encoding is: streams that stand for a tensor, how they are made, read back, and rebuilt by a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from modelkit.packing.body import Body

MOST_VALUES = 256
"""A table has up to so many values; their codes are bytes."""


@dataclass(frozen=True)
class Words:
    """A tensor's numbers as bit patterns, so that -0.0 and every NaN come back as they were.

    Attributes:
        flat: ``uint8``, ``uint16``, ``uint32`` or ``uint64``, ``[count]``.
        distinct: The patterns that occur, ascending; None where they are more than `MOST_VALUES`.
        nonzero: The positions that are not +0, ``int64[m]``.
        nonzero_distinct: The patterns other than +0, as `distinct`.
    """

    flat: np.ndarray
    distinct: np.ndarray | None
    nonzero: np.ndarray
    nonzero_distinct: np.ndarray | None

    @classmethod
    def of(cls, array: np.ndarray) -> Words:
        """Look at the bits of an array of any numeric type of 1, 2, 4 or 8 bytes."""
        flat = words_of(array).reshape(-1)
        nonzero = np.flatnonzero(flat)
        other = np.unique(flat[nonzero])
        zeros = len(nonzero) < len(flat)
        every = np.concatenate([np.zeros(1, flat.dtype), other]) if zeros else other
        return cls(flat, _table(every), nonzero, _table(other))

    @property
    def values(self) -> np.ndarray:
        """The patterns that are not +0, in order."""
        return self.flat[self.nonzero]


def words_of(array: np.ndarray) -> np.ndarray:
    """The bits of numbers as unsigned integers of the same width, in the same shape."""
    return np.ascontiguousarray(array).reshape(array.shape).view(f"u{array.dtype.itemsize}")


def _table(distinct: np.ndarray) -> np.ndarray | None:
    return distinct if len(distinct) <= MOST_VALUES else None


def bits_for(count: int) -> int:
    """Bits of a code that tells so many things apart, at least 1."""
    return max(1, (count - 1).bit_length())


def with_zero(table: np.ndarray) -> np.ndarray:
    """A table whose first entry is +0."""
    return np.concatenate([np.zeros(1, table.dtype), table])


@dataclass(frozen=True)
class Streams:
    """A tensor in another form.

    Attributes:
        arrays: What the function takes, by the name of its input, in order.
        attributes: What else a call says: numbers of entries.
    """

    arrays: Mapping[str, np.ndarray]
    attributes: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class Encoding(Protocol):
    """One way to store a tensor. Its parameters are part of its name, which is the function's."""

    @property
    def name(self) -> str:
        """Name of the function: ``Mask4``."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the function's inputs, in order."""

    @property
    def attributes(self) -> Sequence[str]:
        """Names of the function's attributes besides `shape`."""

    def encode(self, words: Words) -> Streams:
        """Store a tensor; only called where the encoding was offered for it."""

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        """Return the bit patterns ``[count]``.

        Raises:
            ValueError: The streams contradict each other.
        """

    def emit(self, body: Body, shape: str) -> str:
        """Write the operators that do the same; `shape` is the tensor's, ``int64[rank]``; return the flat result."""


def function(encoding: Encoding, opset: int) -> onnx.FunctionProto:
    """The ONNX function of an encoding: the same bytes for the same name and opset."""
    body = Body(encoding.inputs)
    shape = body.attribute("shape")
    flat = encoding.emit(body, shape)
    return body.function(
        encoding.name, opset, body.op("Reshape", flat, shape), ["shape", *encoding.attributes]
    )
