"""Which of several points no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# More points than this are a cloud.
_POINTS = 200


def thinned(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the points as a chart can show: the original, the chosen one and those that nothing beats first."""
    if len(points) <= _POINTS:
        return list(points)
    ranked = sorted(points, key=lambda p: (p["status"] == "tried" or p["status"] == "rejected", not _on_front(p)))
    kept = {id(point) for point in ranked[:_POINTS]}
    return [point for point in points if id(point) in kept]


def _on_front(point: dict[str, Any]) -> bool:
    return any(value is True for key, value in point.items() if key.startswith("front:"))


def mark_front(points: Sequence[dict[str, Any]], x: str, y: str, *, lower: bool) -> None:
    """Put ``front:x:y`` into the points: whether no other is at least as good in both figures and better in one.

    Args:
        points: What is compared; those that lack a figure are left alone.
        x: Field of the figure of which less is better.
        y: Field of the other.
        lower: Whether less of that is better too.
    """
    known = [point for point in points if point.get(x) is not None and point.get(y) is not None]
    sign = 1 if lower else -1
    known.sort(key=lambda point: (point[x], sign * point[y]))
    best: tuple[float, float] | None = None  # the last that nothing beats: figure x, and y as less is better
    for point in known:
        found = point[x], sign * point[y]
        point[f"front:{x}:{y}"] = best is None or found[1] < best[1] or found == best
        if point[f"front:{x}:{y}"]:
            best = found
