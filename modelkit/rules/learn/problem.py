"""What is to be learned: rows, and for each row what the rules should say of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from modelkit.rules.columns import Column
from modelkit.rules.evaluate import Table


@dataclass(frozen=True)
class Problem:
    """Rows with what they should become.

    Attributes:
        columns: The columns that rules may look at.
        table: Their values, N rows.
        classes: The labels; empty for numbers.
        target: float64 [N, K]: what to fit. The probability of each class (one-hot for plain labels), or one
            column of numbers.
        truth: What predictions are held against: int64 [N], indices into `classes`; or float64 [N].
    """

    columns: tuple[Column, ...]
    table: Table
    classes: tuple[str | int, ...]
    target: np.ndarray
    truth: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def is_numeric(self) -> bool:
        """Whether numbers are predicted."""
        return not self.classes

    def rows(self, chosen: np.ndarray) -> Problem:
        """Some of the rows: indices or bool [N]."""
        table = {name: values[chosen] for name, values in self.table.items()}
        return replace(self, table=table, target=self.target[chosen], truth=self.truth[chosen])

    def decided(self) -> Problem:
        """The same rows with the likeliest class as the target, where targets are probabilities."""
        if self.is_numeric:
            return self
        return self.aimed_at(np.eye(len(self.classes))[self.truth])

    def aimed_at(self, target: np.ndarray) -> Problem:
        """The same rows with something else to fit (the truth stays)."""
        return replace(self, target=target)


def classification(
    columns: tuple[Column, ...], table: Table, labels: np.ndarray, classes: tuple[str | int, ...]
) -> Problem:
    """A problem of plain labels.

    Args:
        columns: The columns.
        table: Their values, N rows.
        labels: int64 [N], indices into the classes.
        classes: The labels.
    """
    target = np.zeros((len(labels), len(classes)))
    target[np.arange(len(labels)), labels] = 1.0
    return Problem(columns, table, classes, target, labels)


def regression(columns: tuple[Column, ...], table: Table, values: np.ndarray) -> Problem:
    """A problem of numbers: values float64 [N]."""
    values = np.asarray(values, np.float64)
    return Problem(columns, table, (), values[:, None], values)


def folds(problem: Problem, count: int, seed: int) -> list[np.ndarray]:
    """Split the rows so that each part has about the same mix of classes (or of small and large numbers).

    Args:
        problem: The rows.
        count: How many parts.
        seed: Seed of the shuffle.

    Returns:
        For each part, bool [N]: the rows that are held out.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(problem))
    order = shuffled[np.argsort(problem.truth[shuffled], kind="stable")]
    part = np.empty(len(problem), np.int64)
    if problem.is_numeric:
        # Neighbours in value go to different parts, in random order.
        for start in range(0, len(order), count):
            block = order[start : start + count]
            part[block] = rng.permutation(count)[: len(block)]
    else:
        part[order] = np.arange(len(order)) % count
    return [part == i for i in range(count)]
