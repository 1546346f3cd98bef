"""An artifact that a run has made, and how it came about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelkit.automl.ensemble import Choice
from modelkit.automl.front import Point
from modelkit.automl.search import Trial


@dataclass
class Outcome:
    """A finished artifact and how it was found.

    Attributes:
        trials: Everything that was tried.
        choice: What it is made of.
        built: What building it found: bytes, latency, differences, scores.
        temperature: How probabilities were softened.
        favour: Factors on classes.
        final: Whether the run is over, or this is an early artifact.
        refitted: Whether it was fitted on all rows.
        notes: What a reader must know.
        front: What else was built, the artifact first, for its size and latency.
    """

    trials: list[Trial]
    choice: Choice
    built: dict[str, Any]
    temperature: float = 1.0
    favour: list[float] | None = None
    final: bool = False
    refitted: bool = False
    notes: list[str] = field(default_factory=list)
    front: list[Point] = field(default_factory=list)


Publish = Callable[[Path, Outcome], None]
"""Told of each artifact: its file, which it may move, and how it came about."""
