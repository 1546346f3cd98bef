"""Which of several points no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def mark_front(points: Sequence[dict[str, Any]], x: str, y: str, *, lower: bool) -> None:
    """Put ``front:x:y`` into the points: whether no other is at least as good in both figures and better in one.

    Args:
        points: What is compared; those that lack a figure are left alone.
        x: Field of the figure of which less is better.
        y: Field of the other.
        lower: Whether less of that is better too.
    """
    known = [point for point in points if point.get(x) is not None and point.get(y) is not None]
    sign = -1 if lower else 1
    for point in known:
        point[f"front:{x}:{y}"] = not any(
            other[x] <= point[x]
            and sign * other[y] >= sign * point[y]
            and (other[x] < point[x] or sign * other[y] > sign * point[y])
            for other in known
        )
