"""Take off a region what boxes plainly cover: the unit propagation of satisfiability solvers, on spans and sets.

Where a box holds all of the region on every axis but one, what the boxes leave must lie outside of it on that axis.
In sets of short rules each such step brings on the next, so that few cuts remain to be tried.
"""

from __future__ import annotations

import numpy as np

from modelkit.rules.boxes import Boxes, Region


def narrowed(boxes: Boxes, region: Region) -> Region | None:
    """A part of a region that holds all that boxes do not cover of it; None where they cover all of it.

    Args:
        boxes: The boxes.
        region: The region.
    """
    while True:
        boxes = boxes.take(boxes.touching(region))
        spans = (boxes.low > region.low) | (boxes.high < region.high)
        sets = (~boxes.bits & region.bits) != 0
        faces = spans.sum(axis=1) + sets.sum(axis=1)
        if not faces.all():
            return None
        once = faces == 1
        smaller = _without(boxes.take(once), spans[once], sets[once], region)
        if smaller is None or smaller is region:
            return smaller
        region = smaller


def _without(boxes: Boxes, spans: np.ndarray, sets: np.ndarray, region: Region) -> Region | None:
    """A region less the ends that are covered by boxes of one open axis each; itself where that is nothing."""
    low, high, bits = region.low.copy(), region.high.copy(), region.bits.copy()
    for axis in np.flatnonzero(spans.any(axis=0)):
        first, last = boxes.low[spans[:, axis], axis], boxes.high[spans[:, axis], axis]
        low[axis] = max(low[axis], last[first <= low[axis]].max(initial=low[axis] - 1) + 1)
        high[axis] = min(high[axis], first[last >= high[axis]].min(initial=high[axis] + 1) - 1)
        if low[axis] > high[axis]:
            return None
    for axis in np.flatnonzero(sets.any(axis=0)):
        bits[axis] &= ~np.bitwise_or.reduce(boxes.bits[sets[:, axis], axis])
        if not bits[axis]:
            return None
    same = (low == region.low).all() and (high == region.high).all() and (bits == region.bits).all()
    return region if same else Region(low, high, bits)
