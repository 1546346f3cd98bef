"""What is to be predicted: classes or a number, from which columns, and how rows count."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from modelkit.data.frame import Frame


class Task(StrEnum):
    """What is predicted."""

    classification = "classification"
    regression = "regression"


@dataclass(frozen=True)
class Problem:
    """A table with its target.

    Attributes:
        task: What is predicted.
        target: Name of the target.
        frame: The columns to predict from.
        y: Of classes their numbers, int64 [N]; else values, float64 [N].
        classes: The classes as they are called, strings or int64 [K]; empty for regression.
        weight: Weight of each row, float64 [N], mean 1; None where all count the same.
        groups: Rows that belong together have the same number, int64 [N]; None without groups.
        order: Position of each row in time, float64 [N]; None without.
        seed: Seed of everything random.
    """

    task: Task
    target: str
    frame: Frame
    y: np.ndarray
    classes: np.ndarray = field(default_factory=lambda: np.empty(0, object))
    weight: np.ndarray | None = None
    groups: np.ndarray | None = None
    order: np.ndarray | None = None
    seed: int = 0

    @property
    def is_classes(self) -> bool:
        """Whether classes are predicted."""
        return self.task is Task.classification

    @property
    def width(self) -> int:
        """Columns of a prediction: one for each class, or one."""
        return len(self.classes) if self.is_classes else 1

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.frame.rows

    def take(self, rows: np.ndarray) -> Problem:
        """Some rows, by number."""

        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return Problem(
            self.task,
            self.target,
            self.frame.take(rows),
            self.y[rows],
            self.classes,
            some(self.weight),
            some(self.groups),
            some(self.order),
            self.seed,
        )
