"""Many boxes as arrays, so that thousands of them are compared at once; a region is a single box.

Ordered axes (numbers, linear conditions, categories of more than 64 cells) hold spans of cells, a first and a last
one; a set with holes becomes several boxes. Smaller category axes hold the bits of their cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from modelkit.rules.axes import Axis, CategoryAxis, Key
from modelkit.rules.cubes import MAX_CUBES, Cube, TooComplexError

_BITS = 64


@dataclass(frozen=True)
class Space:
    """The axes that matter, and which of them are held as spans.

    Attributes:
        axes: All axes, by key.
        spans: Keys of axes held as spans, in order.
        sets: Keys of axes held as bits.
    """

    axes: Mapping[Key, Axis]
    spans: tuple[Key, ...]
    sets: tuple[Key, ...]

    @staticmethod
    def of(axes: Mapping[Key, Axis], cubes: Iterable[Cube]) -> Space:
        """The space of those axes that the cubes restrict."""
        used = {key for cube in cubes for key in cube}
        keys = [key for key in axes if key in used]
        sets = tuple(key for key in keys if _as_bits(axes[key]))
        return Space(axes, tuple(key for key in keys if key not in set(sets)), sets)

    def whole(self) -> Region:
        """Everything that can occur, as few regions joined into one box; holes of a domain lie outside of cubes."""
        spans = [_bounds(self.axes[key].domain) for key in self.spans]
        low, high = np.array(spans, np.int32).reshape(-1, 2).T
        return Region(low, high, np.array([self.axes[key].domain for key in self.sets], np.uint64))

    def boxes(self, cubes: Sequence[tuple[int, Cube]]) -> Boxes:
        """Boxes of cubes that come with their owner's index.

        Raises:
            TooComplexError: Holes would make too many boxes of a cube.
        """
        low: list[tuple[int, ...]] = []
        high: list[tuple[int, ...]] = []
        bits: list[list[int]] = []
        owner: list[int] = []
        full = [[_bounds(self.axes[key].domain)] for key in self.spans]
        domains = [self.axes[key].domain for key in self.sets]
        for index, cube in cubes:
            runs = [list(_runs(cube[key])) if key in cube else full[i] for i, key in enumerate(self.spans)]
            inside = [cube.get(key, domain) for key, domain in zip(self.sets, domains, strict=True)]
            if np.prod([float(len(run)) for run in runs]) > MAX_CUBES:
                raise TooComplexError
            for choice in product(*runs):
                low.append(tuple(first for first, _ in choice))
                high.append(tuple(last for _, last in choice))
                bits.append(inside)
                owner.append(index)
        shape = (len(owner), len(self.spans))
        return Boxes(
            np.array(low, np.int32).reshape(shape),
            np.array(high, np.int32).reshape(shape),
            np.array(bits, np.uint64).reshape(len(owner), len(self.sets)),
            np.array(owner, np.int64),
        )


def _as_bits(axis: Axis) -> bool:
    return isinstance(axis, CategoryAxis) and axis.size <= _BITS


def _bounds(cells: int) -> tuple[int, int]:
    return (cells & -cells).bit_length() - 1, cells.bit_length() - 1


def _runs(cells: int) -> Iterator[tuple[int, int]]:
    """The spans of neighbouring cells in a set."""
    start = 0
    while cells:
        skip = (cells & -cells).bit_length() - 1
        cells >>= skip
        start += skip
        length = ((cells + 1) & -(cells + 1)).bit_length() - 1
        yield start, start + length - 1
        cells >>= length
        start += length


@dataclass(frozen=True)
class Region:
    """One box: first and last cell of each span axis, int32 [S]; bits of each set axis, uint64 [T]."""

    low: np.ndarray
    high: np.ndarray
    bits: np.ndarray

    def is_single(self) -> bool:
        """Whether it is one cell on every axis."""
        one = (self.bits & (self.bits - np.uint64(1))) == 0
        return bool((self.low == self.high).all() and one.all())


@dataclass(frozen=True)
class Boxes:
    """B boxes: ``low`` and ``high`` int32 [B, S], ``bits`` uint64 [B, T], and the index of each owner, int64 [B]."""

    low: np.ndarray
    high: np.ndarray
    bits: np.ndarray
    owner: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, which: np.ndarray) -> Boxes:
        """Some of them, by index or mask."""
        return Boxes(self.low[which], self.high[which], self.bits[which], self.owner[which])

    def region(self, index: int) -> Region:
        """One of them."""
        return Region(self.low[index], self.high[index], self.bits[index])

    def touching(self, region: Region) -> np.ndarray:
        """Which share a cell with the region: bool [B]."""
        spans = ((self.low <= region.high) & (self.high >= region.low)).all(axis=1)
        found: np.ndarray = spans & ((self.bits & region.bits) != 0).all(axis=1)
        return found

    def containing(self, region: Region) -> np.ndarray:
        """Which hold all of the region: bool [B]."""
        spans = ((self.low <= region.low) & (self.high >= region.high)).all(axis=1)
        found: np.ndarray = spans & ((~self.bits & region.bits) == 0).all(axis=1)
        return found

    def meet(self, left: int, right: int) -> Region:
        """What two of them share."""
        return Region(
            np.maximum(self.low[left], self.low[right]),
            np.minimum(self.high[left], self.high[right]),
            self.bits[left] & self.bits[right],
        )

    def pairs(self, block: int = 256) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All pairs of boxes that share a cell, the first index below the second, in blocks: two int64 arrays.

        Axes are asked in the order of how many pairs they part; after a few, the pairs that are left are so few
        that they are looked at one by one.
        """
        order = np.argsort((self.high - self.low + 1).astype(np.float64).mean(axis=0)) if len(self) else []
        axes = [axis for axis in order if not self._is_full(int(axis))]
        low, high = np.ascontiguousarray(self.low.T), np.ascontiguousarray(self.high.T)
        for start in range(0, len(self), block):
            rows = slice(start, min(start + block, len(self)))
            alive = np.arange(start, len(self))[None, :] > np.arange(rows.start, rows.stop)[:, None]
            for axis in axes[:4]:
                alive &= low[axis, rows, None] <= high[axis, None, start:]
                alive &= high[axis, rows, None] >= low[axis, None, start:]
            left, right = np.nonzero(alive)
            left, right = left + start, right + start
            for axis in axes[4:]:
                keep = (low[axis, left] <= high[axis, right]) & (high[axis, left] >= low[axis, right])
                left, right = left[keep], right[keep]
            for column in range(self.bits.shape[1]):
                keep = (self.bits[left, column] & self.bits[right, column]) != 0
                left, right = left[keep], right[keep]
            if len(left):
                yield left, right

    def _is_full(self, axis: int) -> bool:
        """Whether no box is restricted on a span axis more than all others are."""
        return bool(self.low[:, axis].max() == self.low[:, axis].min() and np.ptp(self.high[:, axis]) == 0)


def halves(boxes: Boxes, region: Region) -> tuple[Region, Region] | None:
    """Cut a region in two where that leaves the fewest boxes to look at on both sides.

    Args:
        boxes: Boxes that touch the region.
        region: What to cut.

    Returns:
        The parts; None where the region is one cell, or no box has a face inside it.
    """
    best: tuple[float, int, int] | None = None
    for axis in range(boxes.low.shape[1]):
        low, high = np.sort(boxes.low[:, axis]), np.sort(boxes.high[:, axis])
        cuts = np.unique(np.concatenate([low, high + 1]))
        cuts = cuts[(cuts > region.low[axis]) & (cuts <= region.high[axis])]
        if not len(cuts):
            continue
        left = np.searchsorted(low, cuts, side="left").astype(np.float64)
        right = len(high) - np.searchsorted(high, cuts, side="left").astype(np.float64)
        cost = left * left + right * right
        index = int(cost.argmin())
        if best is None or cost[index] < best[0]:
            best = (float(cost[index]), axis, int(cuts[index]))
    chosen = _best_bit(boxes, region, best)
    if chosen is not None:
        axis, bit = chosen
        inner, outer = region.bits.copy(), region.bits.copy()
        inner[axis], outer[axis] = bit, region.bits[axis] & ~bit
        return replace(region, bits=inner), replace(region, bits=outer)
    if best is None:
        return None
    _, axis, cut = best
    high, low = region.high.copy(), region.low.copy()
    high[axis], low[axis] = cut - 1, cut
    return replace(region, high=high), replace(region, low=low)


def _best_bit(boxes: Boxes, region: Region, best: tuple[float, int, int] | None) -> tuple[int, np.uint64] | None:
    """A value of a set axis that is better to cut off than the best cut of the span axes."""
    cost, chosen = (np.inf if best is None else best[0]), None
    for axis in range(boxes.bits.shape[1]):
        inside = boxes.bits[:, axis] & region.bits[axis]
        if (inside == region.bits[axis]).all():
            continue
        for cell in range(_BITS):
            bit = np.uint64(1 << cell)
            rest = region.bits[axis] & ~bit
            if not region.bits[axis] & bit or not rest:
                continue
            left, right = float(((inside & bit) != 0).sum()), float(((inside & rest) != 0).sum())
            if left + right < 2 * len(boxes) and left * left + right * right < cost:
                cost, chosen = left * left + right * right, (axis, bit)
    return chosen
