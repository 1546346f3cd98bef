"""Codes: how a run of small whole numbers, 0 to 255, is stored. `fixed` and `prefix` are the two ways."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from modelkit.packing.body import Body
from modelkit.packing.fixed import Fixed
from modelkit.packing.prefix import Prefix


class Code(Protocol):
    """A way to store codes. Its arrays' names begin with a prefix, so that a function can take several runs."""

    @property
    def name(self) -> str:
        """What the name of a function says of it."""

    @property
    def depth(self) -> int:
        """Bits of a code that are read one after another; 0 where all are read at once."""

    def inputs(self, prefix: str) -> list[str]:
        """Names of its arrays, in order."""

    def nbytes(self, histogram: np.ndarray) -> int:
        """Bytes of its arrays for codes that occur so often, ``int64[codes]``."""

    def encode(self, codes: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
        """Store codes ``uint8[count]``."""

    def decode(self, arrays: Mapping[str, np.ndarray], prefix: str, count: int) -> np.ndarray:
        """Return the codes, ``uint8[count]``.

        Raises:
            ValueError: The arrays contradict each other.
        """

    def emit(self, body: Body, prefix: str, count: str) -> str:
        """Write the operators that do the same; return the codes as ``int32[count]``."""


def bits_for(count: int) -> int:
    """Bits of a code that tells so many things apart, at least 1."""
    return max(1, (count - 1).bit_length())


def offers(histogram: np.ndarray, *, prefix: bool) -> Iterator[tuple[Code, int]]:
    """Ways to store codes that occur so often, and the bytes of their arrays.

    Several prefix codes are offered, since weights that are stored alike share a function.

    Args:
        histogram: How often each code occurs, ``int64[codes]``.
        prefix: Whether codes of several lengths are open.
    """
    fixed = Fixed(bits_for(len(histogram)))
    yield fixed, fixed.nbytes(histogram)
    if prefix and np.count_nonzero(histogram) > 2:
        for least, most in ((1, 8), (1, 12), (4, 12)):
            if np.count_nonzero(histogram) <= min(255, 1 << most):
                code = Prefix(least, most)
                yield code, code.nbytes(histogram)


def by_name(name: str) -> Code | None:
    """Return the code that a part of a function's name means."""
    if re.fullmatch(r"[1-8]", name):
        return Fixed(int(name))
    if found := re.fullmatch(r"p([124])to(1?\d)", name):
        least, most = int(found[1]), int(found[2])
        return Prefix(least, most) if least < most <= 16 else None
    return None
