"""Scales and zero points as every single weight has them, and between which integers it lies."""

from __future__ import annotations

import numpy as np

from modelkit.quantize.affine import Quantized


def spread(numbers: np.ndarray, quantized: Quantized) -> np.ndarray:
    """Give each weight the number of its block or channel.

    Args:
        numbers: In the shape of the scale.
        quantized: The weight.
    """
    if quantized.block is not None:
        axis, size = quantized.block
        numbers = np.repeat(numbers, size, axis=axis)
    return np.broadcast_to(numbers, quantized.values.shape)


def limits_of(quantized: Quantized) -> tuple[int, int]:
    """Return the smallest and the largest integer that a weight may take."""
    if quantized.zero_point is not None:
        return 0, 2**quantized.bits - 1
    return -(2 ** (quantized.bits - 1) - 1), 2 ** (quantized.bits - 1) - 1
