"""Magnitude pruning: the weights nearest to zero become zero (weight clipping).

Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015 (arXiv:1506.02626).
"""

from __future__ import annotations

import numpy as np


def scores(weights: np.ndarray) -> np.ndarray:
    """Rate weights: S = |W|, float32 and of the same shape."""
    return np.abs(weights.astype(np.float32))
