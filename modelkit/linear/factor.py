"""The inverse of a symmetric matrix as a triangular factor: for zeroing or rounding column by column."""

from __future__ import annotations

import numpy as np

# Above this many inputs what follows the factorisation is done in float32.
_SINGLE_FROM = 2048
_SMALL = 128


def inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """Return the upper triangular U with H⁻¹ = Uᵀ U, in float32 where it is large.

    One Cholesky factor of H read backwards: H = R Rᵀ with R upper triangular, and U = R⁻¹.
    """
    lower = np.linalg.cholesky(matrix[::-1, ::-1])
    kind = np.float32 if len(matrix) > _SINGLE_FROM else np.float64
    upper = np.ascontiguousarray(lower[::-1, ::-1], dtype=kind)
    del lower  # before the inverse takes its room
    return _inverse_of_upper(upper)


def _inverse_of_upper(matrix: np.ndarray) -> np.ndarray:
    """Invert an upper triangular matrix by halves: mostly matrix products, which are fast."""
    size = len(matrix)
    if size <= _SMALL:
        return np.triu(np.linalg.inv(matrix))
    half = size // 2
    inverse = np.zeros_like(matrix)
    first = inverse[:half, :half] = _inverse_of_upper(matrix[:half, :half])
    last = inverse[half:, half:] = _inverse_of_upper(matrix[half:, half:])
    inverse[:half, half:] = -(first @ matrix[:half, half:]) @ last
    return inverse
