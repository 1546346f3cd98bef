"""Numbers to integers and back: Q(x) = round(x·S + B), per tensor, channel or block.

S is the reciprocal of the scale and B the zero point (Jacob et al. 2018, arXiv:1712.05877, eq. 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Center = Literal["zero", "range", "mean"]
Rounding = Literal["nearest", "floor"]
ScaleSearch = Literal["minmax", "mse"]

# Shrink factors tried by the MSE search: below 0.3 of the range clipping never pays, even at 2 bits.
_SHRINK = np.linspace(1.0, 0.3, 36)


@dataclass(frozen=True)
class Quantized:
    """A tensor as integers with its scale.

    Attributes:
        values: Integers in the tensor's shape; int8 when symmetric, uint8 otherwise, whatever the bits.
        scale: float32, in a shape that broadcasts against ``values`` (against the blocked view when blocked).
        zero_point: uint8 in the shape of ``scale``; None when symmetric.
        bits: 2 to 8.
        block: (axis, size) when each block along ``axis`` has its own scale; None otherwise.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    bits: int
    block: tuple[int, int] | None = None


def quantize_array(
    array: np.ndarray,
    *,
    bits: int = 8,
    reduce_axes: tuple[int, ...] | None = None,
    block: tuple[int, int] | None = None,
    center: Center = "zero",
    search: ScaleSearch = "minmax",
    rounding: Rounding = "nearest",
) -> Quantized:
    """Quantize a float tensor.

    Args:
        array: Finite floats, any shape.
        bits: 2 to 8; symmetric values span ±(2^(bits-1) - 1), others 0 to 2^bits - 1.
        reduce_axes: Axes that share a scale; None for one scale in all.
        block: (axis, size): blocks of ``size`` along ``axis`` share a scale; the length of the axis
            must be a multiple of the size. Overrides ``reduce_axes``.
        center: ``zero`` is symmetric; ``range`` puts the zero point so that min..max fills the integers;
            ``mean`` centres the integers on the mean.
        search: ``minmax`` covers every value; ``mse`` shrinks the range to the least squared error.
        rounding: ``nearest``, or ``floor`` which is biased by half a step.

    Raises:
        ValueError: The bits are out of range or the block does not divide its axis.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be 2 to 8, not {bits}")
    x = np.ascontiguousarray(array, dtype=np.float32)
    shape = x.shape
    if block is not None:
        axis, size = block
        if shape[axis] % size:
            raise ValueError(f"axis {axis} of length {shape[axis]} is not a multiple of the block size {size}")
        x = x.reshape(*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
        reduce_axes = (axis + 1,)
    axes = tuple(range(x.ndim)) if reduce_axes is None else reduce_axes

    if center == "zero":
        top = 2 ** (bits - 1) - 1
        limit = np.abs(x).max(axis=axes, keepdims=True, initial=0.0)
        scale = _search_symmetric(x, limit, top, axes) if search == "mse" else _safe(limit / top)
        values = np.clip(_round(x / scale, rounding), -top, top).astype(np.int8)
        zero_point = None
    else:
        low, high = _limits(x, axes, center)
        top = 2**bits - 1
        if search == "mse":
            low, high = _search_range(x, low, high, top, axes)
        scale = _safe((high - low) / top)
        zero = np.clip(np.rint(-low / scale), 0, top)
        values = np.clip(_round(x / scale + zero, rounding), 0, top).astype(np.uint8)
        zero_point = zero.astype(np.uint8)
    if block is not None:
        scale = scale.squeeze(axes[0])
        zero_point = None if zero_point is None else zero_point.squeeze(axes[0])
    return Quantized(values.reshape(shape), scale.astype(np.float32), zero_point, bits, block)


def dequantize(quantized: Quantized) -> np.ndarray:
    """Return the float32 tensor that the integers stand for: (q - zero_point) · scale."""
    values = quantized.values.astype(np.float32)
    scale, zero = quantized.scale, quantized.zero_point
    if quantized.block is not None:
        axis, size = quantized.block
        scale = np.repeat(scale, size, axis=axis)
        zero = None if zero is None else np.repeat(zero, size, axis=axis)
    if zero is not None:
        values -= zero.astype(np.float32)
    return values * scale


def sqnr_db(reference: np.ndarray, approximation: np.ndarray) -> float:
    """Signal to quantization noise in decibels; infinite where both agree exactly."""
    error = float(np.square(reference.astype(np.float64) - approximation).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return float("inf") if error == 0 else 10 * float(np.log10(max(signal, 1e-300) / error))


def _round(x: np.ndarray, rounding: Rounding) -> np.ndarray:
    return np.floor(x) if rounding == "floor" else np.rint(x)


def _safe(scale: np.ndarray) -> np.ndarray:
    """Replace scales of all-zero slices, which would divide by zero, and of subnormal ones, which overflow."""
    return np.where(scale < 1e-30, np.float32(1.0), scale).astype(np.float32)


def _limits(x: np.ndarray, axes: tuple[int, ...], center: Center) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the range. Zero always lies inside: padding must stay exact."""
    low = np.minimum(x.min(axis=axes, keepdims=True, initial=0.0), 0.0)
    high = np.maximum(x.max(axis=axes, keepdims=True, initial=0.0), 0.0)
    if center == "mean":
        mean = x.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
        reach = np.maximum(high - mean, mean - low)
        low, high = np.minimum(mean - reach, 0.0), np.maximum(mean + reach, 0.0)
    return low, high


def _search_symmetric(x: np.ndarray, limit: np.ndarray, top: int, axes: tuple[int, ...]) -> np.ndarray:
    best = np.full(limit.shape, np.inf)
    best_scale = _safe(limit / top)
    for shrink in _SHRINK:
        scale = _safe(limit * np.float32(shrink) / top)
        error = np.square(np.clip(np.rint(x / scale), -top, top) * scale - x).sum(
            axis=axes, keepdims=True, dtype=np.float64
        )
        better = error < best
        best = np.where(better, error, best)
        best_scale = np.where(better, scale, best_scale)
    return best_scale


def _search_range(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, top: int, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    best = np.full(low.shape, np.inf)
    best_low, best_high = low, high
    for shrink in _SHRINK:
        lo, hi = low * np.float32(shrink), high * np.float32(shrink)
        scale = _safe((hi - lo) / top)
        zero = np.clip(np.rint(-lo / scale), 0, top)
        error = np.square((np.clip(np.rint(x / scale + zero), 0, top) - zero) * scale - x).sum(
            axis=axes, keepdims=True, dtype=np.float64
        )
        better = error < best
        best = np.where(better, error, best)
        best_low, best_high = np.where(better, lo, best_low), np.where(better, hi, best_high)
    return best_low, best_high
