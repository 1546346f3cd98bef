"""Rows of one layer's inputs and of what its output should be, and the weights that fit them best."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from modelkit.prune.grams import LayerGram

# Rows that a layer is fitted to: neighbouring places of an image say much the same.
MOST_ROWS = 32_768
ROWS_PER_COLUMN = 32
# Rows are kept, for fitting layer and Relu together, as long as they do not take more than this.
KEPT_BYTES = 256 * 1024 * 1024
_ROUNDS = 8


@dataclass
class Fit:
    """Least squares for one layer: ``rows @ matrices.T + shift`` near the targets.

    Attributes:
        matrices: The weights to start from and to be pulled to, ``[groups, outputs, columns]``, float64.
        biased: Whether a number can be added to each output.
        relu: Whether a Relu follows, behind which negative numbers are all the same.
    """

    matrices: np.ndarray
    biased: bool
    relu: bool
    _gram: LayerGram = field(default_factory=LayerGram)
    _rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = field(default_factory=list)
    _bytes: int = 0
    _total: np.ndarray = field(default_factory=lambda: np.zeros(()))
    _energy: float = 0.0

    @property
    def rows_wanted(self) -> int:
        """How many rows are enough."""
        return max(MOST_ROWS, ROWS_PER_COLUMN * self.matrices.shape[2])

    def add(self, columns: np.ndarray, found: np.ndarray, targets: np.ndarray) -> None:
        """Take in rows.

        Args:
            columns: What the matrices are multiplied with, ``[rows, groups, columns]``.
            found: What the output, or the sum that it goes into, is now: ``[rows, groups * outputs]``.
            targets: What it should be, same shape.
        """
        shape = (len(columns), *self.matrices.shape[:2])
        rest = found.reshape(shape) - _product(columns, self.matrices, np.zeros(shape[1:]))
        wanted = targets.reshape(shape).astype(np.float64) - rest
        self._gram.add(columns, wanted)
        self._total = self._total + wanted.sum(axis=0)
        self._energy += float(np.square(wanted).sum())
        if not self.relu or self._rows is None:
            return
        self._bytes += columns.nbytes + 2 * rest.nbytes
        if self._bytes > KEPT_BYTES:
            self._rows = None
        else:
            self._rows.append((columns, targets.reshape(shape), rest))

    def solve(self, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        """Find the best weights.

        Args:
            ridge: Pull toward the weights at the start, as a share of the mean of the Gram matrix's diagonal.

        Returns:
            The matrices, and what to add to each output, ``[groups, outputs]`` (zeros where there is no bias).
        """
        gram, count = self._gram, self._gram.count
        assert gram.xtx is not None and gram.cross is not None
        mean = self._centre(gram.mean)
        moments = gram.xtx / count - mean[:, :, None] * mean[:, None, :]
        size = moments.shape[-1]
        pull = np.maximum(ridge * np.trace(moments, axis1=1, axis2=2) / size, 1e-10)[:, None, None]
        inverse = np.linalg.inv(moments + pull * np.eye(size))

        def fit(cross: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            centre = self._centre(total / count)
            right = cross / count - mean[:, :, None] * centre[:, None, :] + pull * self.matrices.transpose(0, 2, 1)
            matrices = (inverse @ right).transpose(0, 2, 1)
            return matrices, centre - np.einsum("goi,gi->go", matrices, mean)

        matrices, shift = fit(gram.cross, self._total)
        for _ in range(_ROUNDS if self._rows else 0):
            matrices, shift = fit(*self._behind_relu(matrices, shift))
        return matrices, shift

    def shift(self) -> np.ndarray:
        """What to add to each output so that its mean is right, with the weights as they are: ``[groups, outputs]``."""
        shift = self._total / self._gram.count - np.einsum("goi,gi->go", self.matrices, self._gram.mean)
        return self._centre(shift)

    def error(self, matrices: np.ndarray, shift: np.ndarray) -> float:
        """Squared error of a solution, behind the Relu if there is one, as a share of the targets' spread."""
        if self._rows:
            return self._error_behind_relu(matrices, shift)
        gram, count = self._gram, self._gram.count
        assert gram.xtx is not None and gram.cross is not None
        fitted = np.einsum("goi,goi->", matrices @ gram.xtx, matrices) + count * np.square(shift).sum()
        fitted += 2 * (shift * np.einsum("goi,gi->go", matrices, gram.total)).sum()
        shared = np.einsum("goi,gio->", matrices, gram.cross) + (shift * self._total).sum()
        spread = self._energy - np.square(self._total).sum() / count
        return max(float(self._energy - 2 * shared + fitted), 0.0) / max(float(spread), 1e-30)

    def _centre(self, means: np.ndarray) -> np.ndarray:
        """Means count only where there is a bias to make up for them."""
        return means if self.biased else np.zeros_like(means)

    def _behind_relu(self, matrices: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cross moments and sums of the targets once what a Relu hides on both sides is no error any more."""
        assert self._gram.cross is not None
        cross, total = np.zeros_like(self._gram.cross), np.zeros_like(self._total)
        for columns, targets, rest in self._rows or ():
            found = _product(columns, matrices, shift) + rest
            wanted = np.where(targets > 0, targets, np.minimum(found, 0)) - rest
            cross += columns.transpose(1, 2, 0) @ wanted.transpose(1, 0, 2)
            total += wanted.sum(axis=0, dtype=np.float64)
        return cross, total

    def _error_behind_relu(self, matrices: np.ndarray, shift: np.ndarray) -> float:
        error = energy = 0.0
        total = np.zeros_like(self._total)
        for columns, targets, rest in self._rows or ():
            wanted = np.maximum(targets, 0)
            found = np.maximum(_product(columns, matrices, shift) + rest, 0)
            error += float(np.square(found - wanted, dtype=np.float64).sum())
            energy += float(np.square(wanted, dtype=np.float64).sum())
            total += wanted.sum(axis=0, dtype=np.float64)
        return error / max(energy - float(np.square(total).sum()) / self._gram.count, 1e-30)


def _product(columns: np.ndarray, matrices: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What a layer gives for rows of columns, ``[rows, groups, outputs]``, in the precision of the columns."""
    product = columns.transpose(1, 0, 2) @ matrices.transpose(0, 2, 1).astype(columns.dtype)
    return product.transpose(1, 0, 2) + shift.astype(columns.dtype)
