"""What could be had for fewer bytes or less time: loss, size and latency of the model and of others beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A model that was built.

    Attributes:
        name: Its family; "ensemble" for several.
        trials: Numbers of its trials.
        loss: Loss out of fold.
        bytes: Size of its file.
        latency_ms: Time of one row in onnxruntime, one thread.
        chosen: Whether it is the artifact.
    """

    name: str
    trials: tuple[int, ...]
    loss: float
    bytes: int
    latency_ms: float
    chosen: bool = False

    @property
    def costs(self) -> tuple[float, float, float]:
        """Of all of which less is better."""
        return self.loss, self.bytes, self.latency_ms


def unbeaten(points: Sequence[Point]) -> list[bool]:
    """For each point whether no other is at least as good in loss, size and latency, and better in one (Pareto)."""

    def beats(one: Point, other: Point) -> bool:
        return all(a <= b for a, b in zip(one.costs, other.costs, strict=True)) and one.costs != other.costs

    return [not any(beats(other, point) for other in points) for point in points]
