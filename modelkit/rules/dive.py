"""Look for a cell that no box covers, greedily: fix one axis after the other where that gets rid of most boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelkit.rules.boxes import CELL_BITS, Boxes, Region


def free_region(boxes: Boxes, region: Region) -> Region | None:
    """A part of a region that no box touches, if the greedy way finds one; None says nothing.

    Args:
        boxes: The boxes.
        region: Where to look.
    """
    for _ in range(len(region.low) + len(region.bits) + 1):
        boxes = boxes.take(boxes.touching(region))
        if not len(boxes):
            return region
        if boxes.containing(region).any():
            return None
        span_left, axis, cell = _emptiest_cell(boxes, region)
        set_left, set_axis, bit = _emptiest_bit(boxes, region)
        if min(span_left, set_left) >= len(boxes):
            return None
        if set_left < span_left:
            bits = region.bits.copy()
            bits[set_axis] = bit
            region = replace(region, bits=bits)
        else:
            low, high = region.low.copy(), region.high.copy()
            low[axis] = high[axis] = cell
            region = replace(region, low=low, high=high)
    return None


def _emptiest_cell(boxes: Boxes, region: Region) -> tuple[float, int, int]:
    """How many boxes the best cell of a span axis leaves, the axis, and the cell."""
    best = (np.inf, -1, -1)
    axes = np.flatnonzero((boxes.low > region.low).any(axis=0) | (boxes.high < region.high).any(axis=0))
    lows, highs = np.sort(boxes.low[:, axes], axis=0), np.sort(boxes.high[:, axes], axis=0)
    for k, axis in enumerate(axes.tolist()):
        low, high = lows[:, k], highs[:, k]
        # Coverage falls only where a box has ended, so it is least there or at the very beginning.
        cells = np.append(high + 1, region.low[axis])
        cells = cells[(cells >= region.low[axis]) & (cells <= region.high[axis])]
        left = low.searchsorted(cells, side="right") - high.searchsorted(cells)
        index = int(left.argmin())
        if left[index] < best[0]:
            best = (float(left[index]), axis, int(cells[index]))
    return best


def _emptiest_bit(boxes: Boxes, region: Region) -> tuple[float, int, np.uint64]:
    """The same for set axes."""
    best = (np.inf, -1, np.uint64(0))
    for axis, mask in enumerate(region.bits):
        cells = CELL_BITS[(CELL_BITS & mask) != 0]
        left = ((boxes.bits[:, axis, None] & cells) != 0).sum(axis=0)
        index = int(left.argmin())
        if left[index] < best[0]:
            best = (float(left[index]), axis, cells[index])
    return best
