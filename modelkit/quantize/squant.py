"""Rounding whose errors cancel within each kernel, without data.

Neighbouring places of an image say much the same, so that what a convolution's output loses is about its input times
the sum of a kernel's rounding errors. Rounding to nearest lets that sum grow with the kernel; rounding the few
numbers that lie closest to a half to the other side brings it below half a step (Guo et al., "SQuant: On-the-Fly
Data-Free Quantization via Diagonal Hessian Approximation", 2022, arXiv:2202.07471, section 3.2, the kernel-wise part;
the mean of a whole channel is the bias' to correct).
"""

from __future__ import annotations

import numpy as np

# Numbers looked at together: bounds the memory.
_PIECE = 1 << 20


def cancel_errors(wanted: np.ndarray, values: np.ndarray, lowest: int, highest: int) -> np.ndarray:
    """Round some numbers to the other side so that errors sum up to at most a half.

    Args:
        wanted: What the integers stand for, in steps: float32 ``[kernels, positions]``.
        values: Its integers, rounded to nearest and clipped, as floats of the same shape; changed in place.
        lowest: Smallest integer allowed.
        highest: Largest integer allowed.

    Returns:
        ``values``. No number moves by more than one step, and exact ones (zeros of a pruned weight) never do.
    """
    rows = max(1, _PIECE // max(values.shape[1], 1))
    for start in range(0, len(values), rows):
        _cancel(wanted[start : start + rows], values[start : start + rows], lowest, highest)
    return values


def _cancel(wanted: np.ndarray, values: np.ndarray, lowest: int, highest: int) -> None:
    error = wanted - values
    # What was clipped is no rounding: its error cannot be undone by others.
    error[(error > 0.5) | (error < -0.5)] = 0
    total = error.sum(axis=1)
    left = np.flatnonzero(np.abs(total) > 0.5)
    while left.size:
        sign = np.sign(total[left])
        gain = error[left] * sign[:, None]
        ends = np.where(sign > 0, highest, lowest)[:, None]
        gain[values[left] == ends] = 0
        place = gain.argmax(axis=1)
        able = gain[np.arange(left.size), place] > 0
        left, sign, place = left[able], sign[able], place[able]
        values[left, place] += sign
        error[left, place] -= sign
        total[left] -= sign
        left = left[np.abs(total[left]) > 0.5]
