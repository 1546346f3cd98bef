"""Rows of one layer's inputs and of what its output should be, and the weights that fit them best."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from modelkit.linear.grams import LayerGram

# Rows that a layer is fitted to: neighbouring places of an image say much the same.
MOST_ROWS = 32_768
ROWS_PER_COLUMN = 32
# Rows are kept, for fitting layer and Relu together, as long as they do not take more than this.
KEPT_BYTES = 256 * 1024 * 1024
_ROUNDS = 8
# Up to this many columns the pull is validated, which takes an eigendecomposition.
_VALIDATED = 2048
# Layers with more columns are fitted to at most so many rows, by a matrix of rows and not of columns.
WIDE = 5000
_WIDE_ROWS = 2048
_FEW_ROWS = 30
_PULLS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass
class Fit:
    """Least squares for one layer: ``rows @ matrices.T + shift`` near the targets.

    Attributes:
        matrices: The weights to start from and to be pulled to, ``[groups, outputs, columns]``, float64.
        biased: Whether a number can be added to each output.
        relu: Whether a Relu follows, behind which negative numbers are all the same.
        validated: Whether a stronger pull is taken where that predicts rows better that were left out.
    """

    matrices: np.ndarray
    biased: bool
    relu: bool
    validated: bool = True
    _gram: LayerGram = field(default_factory=LayerGram)
    _rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = field(default_factory=list)
    _bytes: int = 0
    _total: np.ndarray = field(default_factory=lambda: np.zeros(()))
    _energy: float = 0.0

    @property
    def wide(self) -> bool:
        """Whether there are too many columns for their Gram matrix."""
        return self.matrices.shape[2] > WIDE

    @property
    def rows_wanted(self) -> int:
        """How many rows are enough."""
        if self.wide:
            return _WIDE_ROWS
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
        if not self.wide:
            self._gram.add(columns, wanted)
        self._total = self._total + wanted.sum(axis=0)
        self._energy += float(np.square(wanted).sum())
        if self.wide and self._rows is not None:
            self._rows.append((columns, targets.reshape(shape), rest))
        if self.wide or not self.relu or self._rows is None:
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
        if self.wide:
            return self._solve_wide(ridge)
        gram, count = self._gram, self._gram.count
        assert gram.xtx is not None and gram.cross is not None
        mean = self._centre(gram.mean)
        moments = gram.xtx / count - mean[:, :, None] * mean[:, None, :]
        size = moments.shape[-1]
        pull = np.maximum(ridge * np.trace(moments, axis1=1, axis2=2) / size, 1e-10)[:, None, None]
        if self.validated and size <= _VALIDATED:
            values, vectors = np.linalg.eigh(moments)
            values = np.maximum(values, 0)
            pull = self._validated(pull, values, vectors, moments, mean)
            inverse = (vectors / (values[:, None, :] + pull)) @ vectors.transpose(0, 2, 1)
        else:
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

    def _solve_wide(self, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        """The same where rows are fewer than columns: what is added to the weights is a combination of rows."""
        matrices, shifts = self.matrices.copy(), np.zeros(self.matrices.shape[:2])
        rows = self._rows or []
        for group in range(len(matrices)):
            x = np.concatenate([columns[:, group] for columns, _, _ in rows]).astype(np.float64)
            wanted = np.concatenate([(targets - rest)[:, group] for _, targets, rest in rows]).astype(np.float64)
            left = wanted - x @ matrices[group].T
            mean, centre = self._centre(x.mean(axis=0)), self._centre(left.mean(axis=0))
            x, left = x - mean, left - centre
            products = x @ x.T
            # The mean of the diagonal of the Gram matrix, times the rows; with so few of them the pull is strong.
            pull = max(_FEW_ROWS * ridge * float(np.trace(products)) / x.shape[1], 1e-10)
            added = np.linalg.solve(products + pull * np.eye(len(x)), left).T @ x
            matrices[group] += added
            shifts[group] = centre - self._centre(added @ mean)
        return matrices, shifts

    def _validated(
        self, pull: np.ndarray, values: np.ndarray, vectors: np.ndarray, moments: np.ndarray, mean: np.ndarray
    ) -> np.ndarray:
        """The pull, or a stronger one where that predicts rows better that were left out.

        Generalised cross-validation (Golub, Heath and Wahba 1979): the error of the fit over (1 - f / rows)², f
        being the degrees of freedom that it uses up. It matters where rows are few: behind global pooling there is
        one for each sample.
        """
        gram, count = self._gram, self._gram.count
        assert gram.cross is not None
        centre = self._centre(self._total / count)
        cross = (
            gram.cross / count - mean[:, :, None] * centre[:, None, :] - moments @ self.matrices.transpose(0, 2, 1)
        )
        along = np.square(vectors.transpose(0, 2, 1) @ cross).sum(axis=2)
        shift = centre - np.einsum("goi,gi->go", self.matrices, mean)
        start = self._squared_error(self.matrices, shift) / count
        best = np.inf, pull
        for factor in _PULLS:
            damped = values + factor * pull[:, :, 0]
            left = start - float((along * (damped + factor * pull[:, :, 0]) / np.square(damped)).sum())
            freedom = float((values / damped).sum(axis=1).max()) + self.biased
            if freedom < count:
                best = min(best, (max(left, 0.0) / (1 - freedom / count) ** 2, factor * pull), key=lambda b: b[0])
        return best[1]

    def shift(self) -> np.ndarray:
        """What makes the mean of each output right with the weights as they are, ``[groups, outputs]``."""
        if self.wide:
            x = np.mean(np.concatenate([columns for columns, _, _ in self._rows or ()]), axis=0, dtype=np.float64)
            wanted = np.concatenate([targets - rest for _, targets, rest in self._rows or ()])
            return self._centre(wanted.mean(axis=0, dtype=np.float64) - np.einsum("goi,gi->go", self.matrices, x))
        shift = self._total / self._gram.count - np.einsum("goi,gi->go", self.matrices, self._gram.mean)
        return self._centre(shift)

    def error(self, matrices: np.ndarray, shift: np.ndarray) -> float:
        """Squared error of a solution, behind the Relu if there is one, as a share of the targets' spread."""
        if self._rows:
            return self._error_of_rows(matrices, shift)
        spread = self._energy - np.square(self._total).sum() / self._gram.count
        return self._squared_error(matrices, shift) / max(float(spread), 1e-30)

    def _squared_error(self, matrices: np.ndarray, shift: np.ndarray) -> float:
        gram, count = self._gram, self._gram.count
        assert gram.xtx is not None and gram.cross is not None
        fitted = np.einsum("goi,goi->", matrices @ gram.xtx, matrices) + count * np.square(shift).sum()
        fitted += 2 * (shift * np.einsum("goi,gi->go", matrices, gram.total)).sum()
        shared = np.einsum("goi,gio->", matrices, gram.cross) + (shift * self._total).sum()
        return max(float(self._energy - 2 * shared + fitted), 0.0)

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

    def _error_of_rows(self, matrices: np.ndarray, shift: np.ndarray) -> float:
        error = energy = 0.0
        count, total = 0, np.zeros(matrices.shape[:2])
        for columns, targets, rest in self._rows or ():
            wanted, found = targets, _product(columns, matrices, shift) + rest
            if self.relu:
                wanted, found = np.maximum(wanted, 0), np.maximum(found, 0)
            error += float(np.square(found - wanted, dtype=np.float64).sum())
            energy += float(np.square(wanted, dtype=np.float64).sum())
            total += wanted.sum(axis=0, dtype=np.float64)
            count += len(columns)
        return error / max(energy - float(np.square(total).sum()) / count, 1e-30)


def _product(columns: np.ndarray, matrices: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What a layer gives for rows of columns, ``[rows, groups, outputs]``, in the precision of the columns."""
    product = columns.transpose(1, 0, 2) @ matrices.transpose(0, 2, 1).astype(columns.dtype)
    return product.transpose(1, 0, 2) + shift.astype(columns.dtype)
