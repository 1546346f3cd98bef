"""What an encoding is: arrays that stand for a tensor, how they are made, read back, and rebuilt by a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import onnx

from modelkit.packing.body import Body

MOST_VALUES = 256
"""A table has up to so many values; their codes are bytes."""

TABLE = "t"
"""The input that has the tensor's own type: values that codes stand for, or the numbers as they are."""


@dataclass(frozen=True)
class Words:
    """A tensor's numbers as bit patterns, so that -0.0 and every NaN come back as they were.

    Attributes:
        flat: ``uint8``, ``uint16``, ``uint32`` or ``uint64``, ``[count]``.
        shape: The tensor's.
        kind: Its type, where it is known.
    """

    flat: np.ndarray
    shape: tuple[int, ...] = ()
    kind: np.dtype[Any] | None = None

    @classmethod
    def of(cls, array: np.ndarray) -> Words:
        """Look at the bits of an array of any numeric type of 1, 2, 4 or 8 bytes."""
        return cls(words_of(array).reshape(-1), tuple(array.shape), array.dtype)

    @cached_property
    def nonzero(self) -> np.ndarray:
        """Positions of what is not +0, ``int64[m]``."""
        return np.flatnonzero(self.flat)

    @cached_property
    def values(self) -> np.ndarray:
        """What is not +0, in order, ``[m]``."""
        return self.flat[self.nonzero]

    @cached_property
    def _counted(self) -> tuple[np.ndarray, np.ndarray]:
        return np.unique(self.values, return_counts=True)

    @property
    def table(self) -> np.ndarray | None:
        """+0 and the other patterns that occur, ascending; None where they are more than `MOST_VALUES`."""
        others = self._counted[0]
        return with_zero(others) if len(others) < MOST_VALUES else None

    @property
    def histogram(self) -> np.ndarray:
        """How often each entry of the table occurs, ``int64[entries]``."""
        return np.concatenate([[len(self.flat) - len(self.nonzero)], self._counted[1]])


def words_of(array: np.ndarray) -> np.ndarray:
    """The bits of numbers as unsigned integers of the same width, in the same shape."""
    return np.ascontiguousarray(array).reshape(array.shape).view(f"u{array.dtype.itemsize}")


def with_zero(values: np.ndarray) -> np.ndarray:
    """Values behind a +0."""
    return np.concatenate([np.zeros(1, values.dtype), values])


def look_up(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Entries of a table.

    Raises:
        ValueError: A place lies outside of it.
    """
    if places.size and int(places.max()) >= len(table):
        raise ValueError(f"a code is {int(places.max())}, and the table has {len(table)} values")
    return np.asarray(table[places])


@dataclass(frozen=True)
class Streams:
    """A tensor in another form.

    Attributes:
        arrays: What the function takes, by the name of its input, in order.
        attributes: What else a call says: numbers of entries.
    """

    arrays: Mapping[str, np.ndarray]
    attributes: Mapping[str, int]


class Encoding(Protocol):
    """One way to store a tensor. Its parameters are part of its name, which is the function's."""

    @property
    def name(self) -> str:
        """Name of the function: ``Mask4``."""

    @property
    def doc(self) -> str:
        """What the function's inputs are, in a few words."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the function's inputs, in order; the last one is `TABLE`."""

    @property
    def attributes(self) -> Sequence[str]:
        """Names of the function's attributes besides `shape`."""

    def table(self, words: Words) -> np.ndarray | None:
        """The values that codes stand for, as bit patterns; None where numbers are stored as they are."""

    def reads(self, words: Words) -> int:
        """Bits that are read one after another while the tensor is rebuilt, which is what takes time."""

    def encode(self, words: Words) -> Streams:
        """Store a tensor; only called where the encoding was offered for it."""

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        """Return the bit patterns ``[count]``.

        Raises:
            ValueError: The arrays contradict each other.
        """

    def emit(self, body: Body, shape: str) -> str:
        """Write the operators that do the same; `shape` is the tensor's, ``int64[rank]``; return the flat result."""


def functions(encoding: Encoding, opset: int) -> list[onnx.FunctionProto]:
    """The ONNX function of an encoding, behind those that it calls: the same for a name and an opset."""
    body = Body(encoding.inputs)
    shape = body.attribute("shape")
    flat = encoding.emit(body, shape)
    weight = body.op("Reshape", flat, shape)
    return body.functions(encoding.name, opset, [weight], ["shape", *encoding.attributes], encoding.doc)
