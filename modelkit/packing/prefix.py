"""Prefix codes (Huffman): frequent codes take fewer bits, and standard operators still read all of them at once.

A Huffman stream is read bit by bit, each code beginning where the last one ended, which no graph of operators does.
So the bits are sorted by depth: first the first `least` bits of every code, then the next bit of each code that is
longer, then the next one of those that are longer still. How many numbers are left at a depth, and which, follows
from the bits before, so that each depth is a running sum, a look-up and a comparison on all numbers at once. The
stream has the same length as the usual one.

Codes are canonical (Schwartz and Kallick, 1964): of one length they are consecutive numbers, shorter ones come first;
their lengths come from package-merge (Larmore and Hirschberg, 1990), which is Huffman's code where none is too long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge

import numpy as np

from modelkit.packing.body import Body, Helper
from modelkit.packing.fixed import Fixed, bits_of

# More bits than a stream has.
_ALL = 1 << 40


@dataclass(frozen=True)
class Prefix:
    """Codes of `least` to `most` bits; `least` is 1, 2 or 4."""

    least: int
    most: int

    @property
    def name(self) -> str:
        """See `Code`."""
        return f"p{self.least}to{self.most}"

    @property
    def depth(self) -> int:
        """See `Code`."""
        return self.most - self.least

    @property
    def _first(self) -> Fixed:
        return Fixed(self.least)

    def inputs(self, prefix: str) -> list[str]:
        """See `Code`."""
        return [*self._first.inputs(prefix), f"{prefix}b", f"{prefix}o"]

    def nbytes(self, histogram: np.ndarray) -> int:
        """See `Code`."""
        lengths, order = self._lengths(histogram)
        rest = int(((lengths - self.least) * histogram[order]).sum())
        return self._first.nbytes(histogram) + max(1, -(-rest // 8)) + self.depth + len(order)

    def _lengths(self, histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Code lengths, ascending, and which code has each."""
        present = np.flatnonzero(histogram)
        # Shorter codes than `least` would save nothing: these bits are read in any case.
        lengths = np.maximum(self.least, code_lengths(tuple(histogram[present].tolist()), self.most))
        by_length = np.argsort(lengths, kind="stable")
        return lengths[by_length], present[by_length]

    def encode(self, codes: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
        """See `Code`."""
        lengths, order = self._lengths(np.bincount(codes, minlength=1))
        numbers = _canonical(lengths, self.least)
        place = np.zeros(256, np.int64)
        place[order] = np.arange(len(order))
        number, length = numbers[place[codes]], lengths[place[codes]]
        bits = []
        for depth in range(self.least + 1, self.most + 1):
            longer = length >= depth
            bits.append((number[longer] >> (length[longer] - depth)) & 1)
        stream = np.concatenate([*bits, np.zeros(0, np.int64)]).astype(np.uint8)
        arrays = self._first.encode((number >> (length - self.least)).astype(np.uint8), prefix)
        # An empty stream has nothing to look up in.
        packed = Fixed(1).encode(stream if len(stream) else np.zeros(1, np.uint8), "b")["b1"]
        ends = np.searchsorted(lengths, np.arange(self.least, self.most), side="right")
        return {**arrays, f"{prefix}b": packed, f"{prefix}o": np.concatenate([ends, order]).astype(np.uint8)}

    def decode(self, arrays: Mapping[str, np.ndarray], prefix: str, count: int) -> np.ndarray:
        """See `Code`."""
        packed, order = arrays[f"{prefix}b"], arrays[f"{prefix}o"]
        if any(each.dtype != np.uint8 or each.ndim != 1 for each in (packed, order)) or len(order) < self.depth:
            raise ValueError("the lengths of the codes or their bits have another form")
        bits = Fixed(1).decode({"b1": packed}, "b", 8 * len(packed))
        code, base = self._first.decode(arrays, prefix, count).astype(np.int64), 0
        for end in order[: self.depth].astype(np.int64):
            alive = code >= end
            longer = int(alive.sum())
            if base + longer > len(bits):
                raise ValueError("the codes are longer than their bits")
            code[alive] = 2 * code[alive] - end + bits[base : base + longer]
            base += longer
        if count and (code.min() < 0 or code.max() >= len(order) - self.depth):
            raise ValueError("a code has no meaning")
        return np.asarray(order[self.depth :][code])

    def emit(self, body: Body, prefix: str, count: str) -> str:
        """See `Code`."""
        helper = Helper(
            f"Prefix_{self.least}_{self.most}", self._write, "codes by frequency; b: bits, o: lengths, order"
        )
        return body.call(helper, *self.inputs(prefix), count)[0]

    def _write(self) -> tuple[Body, Sequence[str], Sequence[str]]:
        body = Body([*self.inputs(""), "n"])
        bits = body.integers(bits_of(body, "b", 1, body.constant(np.full(1, _ALL))))
        code, base = self._first.emit(body, "", "n"), body.constant(np.full(1, -1, np.int32))
        row = body.constant(np.zeros(1, np.int64))
        for _ in range(self.depth):
            code, base, row = body.call(_LEVEL, code, base, row, bits, "o", outputs=3)
        # Behind the ends of all lengths stands the order.
        return body, [body.integers(body.op("Gather", "o", body.op("Add", code, body.integers(row))))], []


def _canonical(lengths: np.ndarray, least: int) -> np.ndarray:
    """Code numbers for lengths in ascending order, none below `least`."""
    numbers = np.zeros(len(lengths), np.int64)
    number, before = 0, least
    for place, length in enumerate(lengths.tolist()):
        number <<= length - before
        numbers[place], number, before = number, number + 1, length
    return numbers


def _write_level() -> tuple[Body, Sequence[str], Sequence[str]]:
    """Read one more bit of each code that is not complete.

    A code ``c`` of a depth is told as its place in the order: those that are complete lie below the `end` of that
    depth. The first code of the next depth is twice the first that is longer, and its place is that `end`, so that
    ``c`` becomes ``2 (c - end) + bit + end``.
    """
    body = Body(["c", "p", "r", "b", "o"])
    end = body.integers(body.op("Gather", "o", "r"))
    longer = body.op("GreaterOrEqual", "c", end)
    places = body.op("Add", body.op("CumSum", body.integers(longer), body.constant(np.int32(0))), "p")
    bit = body.op("Gather", "b", places)
    code = body.op("Sub", body.op("Add", body.op("Add", "c", "c"), bit), end)
    last = body.op("Gather", places, body.constant(np.full(1, -1, np.int64)))
    row = body.op("Add", "r", body.constant(np.ones(1, np.int64)))
    return body, [body.op("Where", longer, code, "c"), last, row], []


_LEVEL = Helper("Level", _write_level, "the next bit of each code c that has one")


@lru_cache(maxsize=256)
def code_lengths(weights: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Lengths of a code of least total length, by package-merge.

    Args:
        weights: How often each symbol occurs, at least once; at most ``2 ** most`` of them.
        most: Longer codes are not allowed.
    """
    if len(weights) == 1:
        return (1,)
    leaves = sorted((weight, (index,)) for index, weight in enumerate(weights))
    level_: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(most):
        pairs = [
            (level_[i][0] + level_[i + 1][0], level_[i][1] + level_[i + 1][1]) for i in range(0, len(level_) - 1, 2)
        ]
        level_ = list(merge(leaves, pairs))
    lengths = [0] * len(weights)
    for _, symbols in level_[: 2 * len(weights) - 2]:
        for symbol in symbols:
            lengths[symbol] += 1
    return tuple(lengths)
