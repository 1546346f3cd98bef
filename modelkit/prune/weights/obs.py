"""Optimal brain surgeon, column by column: what a zeroed weight did is taken over by those that stay.

With H = X Xᵀ of a layer's inputs, zeroing w_j costs w_j² / [H⁻¹]_jj if the other weights move by
-w_j / [H⁻¹]_jj * H⁻¹_j (Hassibi & Stork 1993). Going through the columns from left to right with one factor of H⁻¹
for all rows is SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774, algorithm 1). Two things are added: the sweep
starts from the weights that reproduce the *original's* outputs best from the inputs as they are now, so that the
errors of earlier layers are absorbed; and once the zeros are known, what stays is solved for exactly where that is
affordable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelkit.linear.factor import inverse_factor

BLOCK = 128
# Large matrices are worked on in parts of this many columns, so that no second one of their size is needed.
STRIPE = 1024
# Exact solutions cost the cube of the weights kept, for each row.
_REFIT_COST = 1e11

Keep = Callable[[np.ndarray, int, int], np.ndarray]


@dataclass(frozen=True)
class Hessian:
    """What the least squares of layers with the same inputs have in common.

    Attributes:
        matrix: H = X Xᵀ + ridge * I, float64 ``[inputs, inputs]``.
        ridge: How strongly weights are pulled to where they start from.
        upper: U, upper triangular, with H⁻¹ = Uᵀ U; float32 where it is large.
    """

    matrix: np.ndarray
    ridge: float
    upper: np.ndarray

    @classmethod
    def of(cls, gram: np.ndarray, damping: float) -> Hessian:
        """Factor a Gram matrix X Xᵀ, which becomes H in place.

        Args:
            gram: Float64 ``[inputs, inputs]``.
            damping: The ridge as a share of the mean of the diagonal.
        """
        diagonal = np.einsum("ii->i", gram)
        ridge = max(damping * float(diagonal.mean()), 1e-30)
        diagonal += ridge
        return cls(gram, ridge, inverse_factor(gram))

    def right(self, cross: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return B = Y Xᵀ + ridge * W, ``[outputs, inputs]``: W' H = B has the best weights W' without any zeros.

        Args:
            cross: X Yᵀ with the wanted outputs, ``[inputs, outputs]``.
            weights: W at the start, ``[outputs, inputs]``.
        """
        return cross.T + self.ridge * weights

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return B H⁻¹, in the type of ``upper``."""
        return (right.astype(self.upper.dtype) @ self.upper.T) @ self.upper

    def costs(self, weights: np.ndarray) -> np.ndarray:
        """What zeroing each weight costs if all others make up for it: w_j² / [H⁻¹]_jj."""
        return np.square(weights) / np.square(self.upper).sum(axis=0)

    def energy(self, weights: np.ndarray) -> float:
        """Return the sum over rows of w H wᵀ."""
        left = weights.astype(self.upper.dtype)
        total = 0.0
        for start in range(0, len(self.matrix), STRIPE):  # a large H is not copied as a whole
            part = slice(start, start + STRIPE)
            product = left @ self.matrix[:, part].astype(left.dtype)
            total += float(np.einsum("oi,oi->", product, left[:, part], dtype=np.float64))
        return total


def sweep(weights: np.ndarray, upper: np.ndarray, ends: Sequence[int], keep: Keep) -> tuple[np.ndarray, np.ndarray]:
    """Choose zeros from left to right; later columns make up for each.

    Args:
        weights: ``[outputs, inputs]``.
        upper: Of the Hessian.
        ends: Where the groups of columns end whose zeros are chosen together; the last is ``inputs``.
        keep: Given the cost ``[outputs, end - start]`` of each weight of a group, and start and end, returns the
            mask of those that stay.

    Returns:
        The new weights, and the mask.
    """
    weights = weights.astype(upper.dtype)
    mask = np.ones(weights.shape, dtype=bool)
    diagonal = np.diagonal(upper)
    for groups in _in_blocks(ends):
        first, last = groups[0][0], groups[-1][1]
        block, errors = weights[:, first:last], np.zeros_like(weights[:, first:last])
        for start, end in groups:
            mask[:, start:end] = keep(np.square(weights[:, start:end] / diagonal[start:end]), start, end)
            for column in range(start, end):
                at = column - first
                errors[:, at] = np.where(mask[:, column], 0, block[:, at] / diagonal[column])
                block[:, at:] -= np.outer(errors[:, at], upper[column, column:last])
        # Columns further right are updated once a block: a few large products instead of many small ones.
        weights[:, last:] -= errors @ upper[first:last, last:]
    weights[~mask] = 0
    return weights, mask


def _in_blocks(ends: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Gather groups of columns into blocks of about BLOCK."""
    blocks: list[list[tuple[int, int]]] = []
    start = 0
    for end in ends:
        if not blocks or end - blocks[-1][0][0] > BLOCK:
            blocks.append([])
        blocks[-1].append((start, end))
        start = end
    return blocks


def refit(hessian: Hessian, right: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Solve for the weights that stay, row by row: the best there are for these zeros.

    Returns:
        Float64 weights; None where it would take minutes rather than seconds.
    """
    if float((mask.sum(axis=1, dtype=np.float64) ** 3).sum()) > _REFIT_COST:
        return None
    weights = np.zeros(mask.shape)
    for row, kept in enumerate(mask):
        at = np.flatnonzero(kept)
        weights[row, at] = np.linalg.solve(hessian.matrix[np.ix_(at, at)], right[row, at])
    return weights


def error(hessian: Hessian, right: np.ndarray, weights: np.ndarray, start: np.ndarray, energy: float) -> float:
    """Squared error of a layer's outputs as a share of their energy.

    Args:
        hessian: Of the layer's inputs.
        right: From ``Hessian.right``.
        weights: The weights to judge.
        start: The weights that ``right`` was made with.
        energy: Sum of the squares of the wanted outputs.
    """
    pulled = hessian.ridge * float(np.square(start).sum() - np.square(weights - start).sum())
    found = hessian.energy(weights) - 2 * float(np.einsum("oi,oi->", weights, right)) + energy + pulled
    return max(found, 0.0) / max(energy, 1e-30)
