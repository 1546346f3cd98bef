"""Wanda: a weight matters as much as it moves the output, |w| times the norm of its input.

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2023 (arXiv:2306.11695), equation 1.
"""

from __future__ import annotations

import numpy as np

# Inputs that are always zero still leave an order among their weights.
_FLOOR = 1e-12


def scores(weights: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Rate weights: S_ij = |W_ij| * ||X_j||_2.

    Args:
        weights: ``[groups, outputs, inputs]``.
        squares: Sum of the squares of each input over the data, ``[groups, inputs]``.

    Returns:
        Float64 scores of the weights' shape; a weight that is zero already has zero.
    """
    norms = np.sqrt(squares + _FLOOR * max(float(squares.mean()), 1e-300))
    return np.abs(weights.astype(np.float64)) * norms[:, None, :]
