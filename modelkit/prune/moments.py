"""Rows of a layer's inputs and targets, gathered over data, and the least squares that they pose."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Rows that one layer is fitted to: enough for its columns, at least the first, at most what fits in the bytes.
ROWS_PER_COLUMN = 40
MIN_ROWS = 20_000
ROWS_BYTES = 256 * 1024 * 1024


@dataclass
class Fit:
    """Gathers rows and solves for the weights.

    Attributes:
        groups: Groups of the layer.
        columns: Columns of each group's matrix.
        outputs: Outputs of each group.
    """

    groups: int
    columns: int
    outputs: int
    inputs: list[np.ndarray] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)

    @property
    def limit(self) -> int:
        wanted = max(MIN_ROWS, ROWS_PER_COLUMN * self.columns)
        bytes_a_row = 4 * self.groups * (self.columns + self.outputs)
        return max(min(wanted, ROWS_BYTES // bytes_a_row), 1)

    def add(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Take in rows ``[groups, rows, columns]`` and targets ``[rows, groups * outputs]``."""
        self.inputs.append(rows.astype(np.float32))
        self.targets.append(targets.astype(np.float32))
