"""Magnitude pruning: the weights nearest to zero become zero (weight clipping).

Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def masks_by_threshold(weights: Sequence[np.ndarray], threshold: float) -> list[np.ndarray]:
    """Keep what is at least as large as a threshold: w stays if abs(w) >= threshold.

    Args:
        weights: Float arrays of any shape.
        threshold: Positive.

    Returns:
        For each weight a bool array of its shape, True where the number stays.
    """
    return [np.abs(weight) >= threshold for weight in weights]


def masks_by_sparsity(scores: Sequence[np.ndarray], sparsity: float, *, together: bool) -> list[np.ndarray]:
    """Drop the share of numbers with the lowest scores; among equals the later ones go first.

    Args:
        scores: Non-negative float arrays of any shape.
        sparsity: Share to drop, in [0, 1); the count is rounded down.
        together: Whether all arrays are ranked as one, or each by itself.

    Returns:
        For each array a bool array of its shape, True where the number stays.
    """
    if not together:
        return [_drop(score.reshape(-1), sparsity).reshape(score.shape) for score in scores]
    kept = _drop(np.concatenate([score.reshape(-1) for score in scores]), sparsity)
    ends = np.cumsum([score.size for score in scores])
    parts = np.split(kept, ends[:-1])
    return [part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)]


def _drop(flat: np.ndarray, sparsity: float) -> np.ndarray:
    """Mask of a flat array without its ``floor(sparsity * size)`` lowest entries."""
    keep = np.ones(flat.size, dtype=bool)
    count = int(sparsity * flat.size)
    if count:
        # A stable order makes the result the same everywhere; reversed, so that earlier entries win ties.
        order = np.argsort(flat[::-1], kind="stable")
        keep[flat.size - 1 - order[:count]] = False
    return keep
