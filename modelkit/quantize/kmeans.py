"""K-means of numbers on a line: a few values that stand for many with the least squared error.

On a line, clusters are runs of the sorted numbers, so that the best ones are found by dynamic programming (Wang and
Song, "Ckmeans.1d.dp", 2011; the rows of its table by divide and conquer). Where more than `_EXACT` of them are
different, runs of neighbours are joined first, and Lloyd's algorithm (1982) goes on from what is best for these.
"""

from __future__ import annotations

import numpy as np

_EXACT = 1024
_MOST_ROUNDS = 100


def kmeans(numbers: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Find values that numbers can be rounded to.

    Args:
        numbers: Finite numbers, any shape.
        count: Most values, at least 1.
        weights: How much each number counts, at least 0, in the same shape; all alike by default.

    Returns:
        At most `count` values, ascending and different, ``float64[k]``; fewer where there are fewer numbers.
    """
    flat = np.asarray(numbers, np.float64).reshape(-1)
    given = None if weights is None else np.asarray(weights, np.float64).reshape(-1)
    if given is None or not given.any():
        points, counts = np.unique(flat, return_counts=True)
        mass = counts.astype(np.float64)
    else:
        points, inverse = np.unique(flat, return_inverse=True)
        mass = np.bincount(inverse.reshape(-1), weights=given, minlength=len(points)).astype(np.float64)
        # What counts for nothing still has to be rounded to something near.
        mass = np.maximum(mass, mass.mean() * 1e-6)
    if len(points) <= count:
        return points
    line = _Line(points, mass)
    if len(points) <= _EXACT:
        return line.means(_best_runs(line, count))
    joined = line.join(_EXACT)
    coarse = _Line(line.means(joined), np.diff(line.mass[joined]))
    return line.lloyd(coarse.means(_best_runs(coarse, count)))


def nearest(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Places of the nearest values, ``int64`` in the shape of the numbers; the lower one where two are as near.

    Args:
        numbers: Numbers, any shape.
        values: Ascending, at least one.
    """
    return np.searchsorted((values[1:] + values[:-1]) / 2, numbers, side="left")


class _Line:
    """Points on a line with their masses, and sums over runs of them.

    Args:
        points: Ascending, ``float64[n]``.
        mass: Above 0, ``float64[n]``.
    """

    def __init__(self, points: np.ndarray, mass: np.ndarray) -> None:
        self.points = points
        # Counted from the middle: squares of large offsets would swallow the differences.
        self._origin = float(np.average(points, weights=mass))
        moved = points - self._origin
        self.mass = np.concatenate([[0.0], np.cumsum(mass)])
        self.sum = np.concatenate([[0.0], np.cumsum(mass * moved)])
        self.square = np.concatenate([[0.0], np.cumsum(mass * moved * moved)])

    def cost(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Squared error of runs about their means; `end` is not part of a run, and lies behind `start`."""
        total = self.sum[end] - self.sum[start]
        return self.square[end] - self.square[start] - total * total / (self.mass[end] - self.mass[start])

    def means(self, bounds: np.ndarray) -> np.ndarray:
        """Means of the runs between bounds, ``[runs + 1]`` from 0 to the number of points."""
        return self._origin + np.diff(self.sum[bounds]) / np.diff(self.mass[bounds])

    def join(self, count: int) -> np.ndarray:
        """Bounds of runs of neighbours: half of them of the same mass, half of the same length."""
        heavy = np.searchsorted(self.mass, np.linspace(0, self.mass[-1], count // 2))
        long = np.searchsorted(self.points, np.linspace(self.points[0], self.points[-1], count // 2))
        return np.unique(np.concatenate([[0], heavy, long, [len(self.points)]]).clip(0, len(self.points)))

    def lloyd(self, values: np.ndarray) -> np.ndarray:
        """Move values to the means of what is nearest to them, until nothing moves."""
        bounds = np.zeros(0, np.int64)
        for _ in range(_MOST_ROUNDS):
            middle = np.searchsorted(self.points, (values[1:] + values[:-1]) / 2, side="right")
            moved = np.unique(np.concatenate([[0], middle, [len(self.points)]]))
            if np.array_equal(moved, bounds):
                break
            bounds = moved
            values = self.means(bounds)
        return values


def _best_runs(line: _Line, count: int) -> np.ndarray:
    """Bounds of the `count` runs with the least squared error, ``int64[count + 1]``."""
    points = len(line.points)
    ends = np.arange(1, points + 1)
    best = line.cost(np.zeros(points, np.int64), ends)
    starts = np.zeros((count, points), np.int64)
    for row in range(1, count):
        best, starts[row] = _next_row(line, best, row)
    bounds = [points]
    for row in range(count - 1, 0, -1):
        bounds.append(int(starts[row, bounds[-1] - 1]))
    return np.array([0, *reversed(bounds)])


def _next_row(line: _Line, before: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors with one run more, for the first 1, 2, ... points, and where that run starts.

    Where it starts never moves back as points are added, so that the middle one of a stretch halves what is left to
    be looked at for the others. All stretches of one size are done together.
    """
    points = len(before)
    errors, starts = np.full(points, np.inf), np.zeros(points, np.int64)
    todo = [(row, points, row, points)]  # ends - 1 from .. to, starts from .. to
    while todo:
        middles = np.array([(low + high) // 2 for low, high, _, _ in todo])
        first = np.array([a for _, _, a, _ in todo])
        last = np.minimum(np.array([b for _, _, _, b in todo]), middles + 1)
        lengths = last - first
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        own = np.repeat(np.arange(len(todo)), lengths)
        begin = np.arange(offsets[-1]) - offsets[own] + first[own]
        found = before[begin - 1] + line.cost(begin, middles[own] + 1)
        least = np.minimum.reduceat(found, offsets[:-1])
        hits = np.flatnonzero(found == least[own])
        # The first of those that are equally good.
        _, at = np.unique(own[hits], return_index=True)
        chosen = begin[hits[at]]
        errors[middles], starts[middles] = least, chosen
        halves = []
        for (low, high, a, b), middle, start in zip(todo, middles.tolist(), chosen.tolist(), strict=True):
            if low < middle:
                halves.append((low, middle, a, start + 1))
            if middle + 1 < high:
                halves.append((middle + 1, high, start, b))
        todo = halves
    return errors, starts
