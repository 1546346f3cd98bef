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
CELL_BITS = np.uint64(1) << np.arange(_BITS, dtype=np.uint64)
_LOOK_AT = 96  # boxes by which a cut is chosen


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
            pieces = [list(runs(cube[key])) if key in cube else full[i] for i, key in enumerate(self.spans)]
            inside = [cube.get(key, domain) for key, domain in zip(self.sets, domains, strict=True)]
            if np.prod([float(len(run)) for run in pieces]) > MAX_CUBES:
                raise TooComplexError
            for choice in product(*pieces):
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


def runs(cells: int) -> Iterator[tuple[int, int]]:
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

    def take(self, which: np.ndarray | slice) -> Boxes:
        """Some of them, by index, mask or slice."""
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
        if not len(self):
            return
        order = np.argsort((self.high - self.low + 1).astype(np.float64).mean(axis=0))
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
    if len(boxes) > _LOOK_AT:  # a sample shows well enough where to cut
        boxes = boxes.take(np.linspace(0, len(boxes) - 1, _LOOK_AT).astype(np.int64))
    cost, axis, cut = _best_cut(boxes, region)
    bit_cost, bit_axis, bit = _best_bit(boxes, region)
    if min(cost, bit_cost) == np.inf:
        return None
    if bit_cost < cost:
        inner, outer = region.bits.copy(), region.bits.copy()
        inner[bit_axis], outer[bit_axis] = bit, region.bits[bit_axis] & ~bit
        return replace(region, bits=inner), replace(region, bits=outer)
    high, low = region.high.copy(), region.low.copy()
    high[axis], low[axis] = cut - 1, cut
    return replace(region, high=high), replace(region, low=low)


def _best_cut(boxes: Boxes, region: Region) -> tuple[float, int, int]:
    """Cost, axis and first cell of the right part of the best cut across a span axis."""
    best = (np.inf, -1, -1)
    inner = (boxes.low > region.low).any(axis=0) | (boxes.high < region.high).any(axis=0)
    axes = np.flatnonzero(inner)
    lows, highs = np.sort(boxes.low[:, axes], axis=0), np.sort(boxes.high[:, axes], axis=0)
    for k, axis in enumerate(axes.tolist()):
        low, high = lows[:, k], highs[:, k]
        cuts = np.concatenate([low, high + 1])
        cuts = cuts[(cuts > region.low[axis]) & (cuts <= region.high[axis])]
        left = low.searchsorted(cuts).astype(np.float64)
        right = len(high) - high.searchsorted(cuts).astype(np.float64)
        cost = left * left + right * right
        index = int(cost.argmin())
        if cost[index] < best[0]:
            best = (float(cost[index]), axis, int(cuts[index]))
    return best


def _best_bit(boxes: Boxes, region: Region) -> tuple[float, int, np.uint64]:
    """Cost, axis and bit of the best cell to part from the others of a set axis."""
    best = (np.inf, -1, np.uint64(0))
    for axis in range(boxes.bits.shape[1]):
        mask = region.bits[axis]
        inside = boxes.bits[:, axis] & mask
        if (inside == mask).all():
            continue
        cells = CELL_BITS[(CELL_BITS & mask) != 0]
        left = ((inside[:, None] & cells) != 0).sum(axis=0).astype(np.float64)
        right = ((inside[:, None] & (mask & ~cells)) != 0).sum(axis=0).astype(np.float64)
        cost = np.where(left + right < 2 * len(boxes), left * left + right * right, np.inf)
        index = int(cost.argmin())
        if cost[index] < best[0]:
            best = (float(cost[index]), axis, cells[index])
    return best
