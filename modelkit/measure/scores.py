"""Class scores in a model's output: along which axis, whether they are probabilities, stable softmax."""

from __future__ import annotations

import numpy as np


def is_float(array: np.ndarray) -> bool:
    """Whether an array holds floating-point numbers, ml_dtypes' included."""
    # ml_dtypes registers bfloat16 and float8 as kind "V" or "f", depending on its version.
    return array.dtype.kind == "f" or "float" in array.dtype.name


def class_axis(shape: tuple[int, ...]) -> int | None:
    """Guess which axis of an output holds class scores.

    Args:
        shape: Shape with the batch first.

    Returns:
        1 for [N, C] and [N, C, H, W, ...], 2 for [N, T, C]; None where that axis has fewer than 2 entries.
    """
    if len(shape) < 2:
        return None
    axis = 2 if len(shape) == 3 and shape[2] > 1 else 1
    return axis if shape[axis] >= 2 else None


def as_rows(output: np.ndarray, axis: int) -> np.ndarray:
    """Bring class scores into float64 rows.

    Args:
        output: Scores of any shape.
        axis: Axis of the classes.

    Returns:
        Array [rows, classes].
    """
    moved = np.moveaxis(output, axis, -1)
    return moved.reshape(-1, moved.shape[-1]).astype(np.float64)


def are_probabilities(rows: np.ndarray) -> bool:
    """Whether all rows [rows, classes] are non-negative and sum to 1 within 0.001."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) <= 1e-3).all())


def unusable(rows: np.ndarray) -> np.ndarray:
    """Mark rows that name no class: NaN, +inf, or -inf everywhere; one -inf is a masked class and fine."""
    return np.isnan(rows).any(axis=1) | ~np.isfinite(rows.max(axis=1))


def log_softmax(rows: np.ndarray) -> np.ndarray:
    """Log of the softmax of each row, by the shifted log-sum-exp; rows must be usable (see `unusable`)."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
