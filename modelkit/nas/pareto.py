"""Pareto sets: what nothing else beats, how good a set is as a whole, and where its knee lies. Less is better."""

from __future__ import annotations

import numpy as np


def unbeaten(points: np.ndarray) -> np.ndarray:
    """Which points no other dominates: is at least as good in all objectives and better in one.

    Of equal points the first one counts.

    Args:
        points: [N, K].

    Returns:
        Booleans [N].
    """
    return np.logical_not(_beats(points).any(axis=0))


def fronts(points: np.ndarray, most: int | None = None) -> np.ndarray:
    """The number of the front that each point is on: 0 for the unbeaten, 1 for those without these, and so on.

    Args:
        points: [N, K].
        most: Points after which the fronts are of no interest: the others all get the next number.

    Returns:
        Integers [N].
    """
    beats = _beats(points)
    above = beats.sum(axis=0)
    ranks = np.full(len(points), -1)
    rank = done = 0
    while done < min(len(points), len(points) if most is None else most):
        front = (above == 0) & (ranks < 0)
        ranks[front] = rank
        above = above - beats[front].sum(axis=0)
        done += int(front.sum())
        rank += 1
    ranks[ranks < 0] = rank
    return ranks


def _beats(points: np.ndarray) -> np.ndarray:
    """Whether the point of each row dominates that of each column, or is equal to it and comes before it [N, N]."""
    count = len(points)
    as_good, equal = np.ones((count, count), bool), np.ones((count, count), bool)
    for column in points.T:
        as_good &= column[:, None] <= column[None]
        equal &= column[:, None] == column[None]
    return (as_good & ~equal) | np.triu(equal, 1)


def crowding(points: np.ndarray) -> np.ndarray:
    """How far each point of a front is from its neighbours, infinite at the ends (Deb et al., 2002) [N]."""
    found = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        found[order[[0, -1]]] = np.inf
        if span > 0 and len(order) > 2:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return found


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """What a set dominates, up to a reference that is worse in everything.

    Args:
        points: [N, K]; what does not dominate the reference adds nothing.
        reference: [K].
    """
    inside = points[(points < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    inside = inside[unbeaten(inside)]
    if inside.shape[1] == 1:
        return float(reference[0] - inside[:, 0].min())
    # Slices along the last objective: each as thick as the way to the next point, as large as the others say.
    order = np.argsort(inside[:, -1], kind="stable")
    inside, total = inside[order], 0.0
    for number in range(len(inside)):
        end = inside[number + 1, -1] if number + 1 < len(inside) else reference[-1]
        thick = end - inside[number, -1]
        if thick > 0:
            total += thick * hypervolume(inside[: number + 1, :-1], reference[:-1])
    return float(total)


def knee(points: np.ndarray) -> int:
    """The point of a set that is farthest below the plane through its ends, each objective from 0 to 1.

    Args:
        points: An unbeaten set [N, K], N at least 1.

    Returns:
        Its number.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (points - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(unit.sum(axis=1)))
