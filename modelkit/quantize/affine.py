"""Numbers to integers and back: Q(x) = round(x·S + B), per tensor, channel or block.

S is the reciprocal of the scale and B the zero point (Jacob et al. 2018, arXiv:1712.05877, eq. 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from modelkit.quantize.squant import cancel_errors

Center = Literal["zero", "range", "mean"]
Rounding = Literal["nearest", "floor", "squant"]
ScaleSearch = Literal["minmax", "mse", "hqq"]

# Shrink factors tried by the MSE search: below 0.3 of the range clipping never pays, even at 2 bits.
_SHRINK = np.linspace(1.0, 0.3, 36)
# A little below float32's largest number, so that integer times scale never rounds to infinity.
_LARGEST = float(np.finfo(np.float32).max) * (1 - 2.0**-20)


@dataclass(frozen=True)
class Quantized:
    """A tensor as integers with its scale.

    Attributes:
        values: Integers in the tensor's shape; int8 when symmetric, uint8 otherwise, whatever the bits.
        scale: float32, in a shape that broadcasts against ``values`` (against the blocked view when blocked).
        zero_point: uint8 in the shape of ``scale``; None when symmetric.
        bits: 1 to 8.
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
        bits: 1 to 8; symmetric values span ±(2^(bits-1) - 1), others 0 to 2^bits - 1. One bit is the sign, and the
            scale the mean magnitude (Rastegari et al., "XNOR-Net", 2016, equation 6), whatever the options.
        reduce_axes: Axes that share a scale; None for one scale in all.
        block: (axis, size): blocks of ``size`` along ``axis`` share a scale; the length of the axis
            must be a multiple of the size. Overrides ``reduce_axes``.
        center: ``zero`` is symmetric; ``range`` puts the zero point so that min..max fills the integers;
            ``mean`` centres the integers on the mean.
        search: ``minmax`` covers every value; ``mse`` shrinks the range to the least squared error; ``hqq`` goes on
            from there by half-quadratic steps.
        rounding: ``nearest``, ``squant`` whose errors cancel within each kernel of a convolution, or ``floor`` which
            is biased by half a step.

    Raises:
        ValueError: The bits are out of range or the block does not divide its axis.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1 to 8, not {bits}")
    shape = array.shape
    x = np.ascontiguousarray(array, dtype=np.float32).reshape(shape)
    if block is not None:
        axis, size = block
        if shape[axis] % size:
            raise ValueError(f"axis {axis} of length {shape[axis]} is not a multiple of the block size {size}")
        x = x.reshape(*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
        reduce_axes = (axis + 1,)
    axes = tuple(range(x.ndim)) if reduce_axes is None else reduce_axes

    if bits == 1:
        return _signs(x, axes, shape, block)
    low, high = _limits(x, axes, center)
    if search != "minmax":
        shrink = _best_shrink(x, low, high, bits, axes, center, rounding)
        low, high = low * shrink, high * shrink
    grid = _grid(low, high, bits, center)
    if search == "hqq":
        grid = _half_quadratic(x, grid, axes, rounding)
    integers = _integers(x, grid, rounding)
    if rounding == "squant" and block is None:
        integers = _cancelled(x, grid, integers, axes)
    values = integers.astype(np.int8 if grid.zero is None else np.uint8)
    scale, zero_point = grid.scale, None if grid.zero is None else grid.zero.astype(np.uint8)
    if block is not None:
        scale = scale.squeeze(axes[0])
        zero_point = None if zero_point is None else zero_point.squeeze(axes[0])
    return Quantized(values.reshape(shape), scale, zero_point, bits, block)


def _signs(x: np.ndarray, axes: tuple[int, ...], shape: tuple[int, ...], block: tuple[int, int] | None) -> Quantized:
    """Plus or minus the mean magnitude, which is the best that two opposite values can do."""
    scale = np.abs(x).mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    scale = np.where(scale < 1e-30, np.float32(1), scale)
    values = np.where(x < 0, -1, 1).astype(np.int8)
    # Nothing but zeros: they stay what they are.
    values *= np.any(x, axis=axes, keepdims=True)
    return Quantized(values.reshape(shape), scale if block is None else scale.squeeze(axes[0]), None, 1, block)


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


@dataclass(frozen=True)
class _Grid:
    """Where the integers lie: float32 scales and zero points (None when symmetric), and the ends."""

    scale: np.ndarray
    zero: np.ndarray | None
    lowest: int
    highest: int


def _limits(x: np.ndarray, axes: tuple[int, ...], center: Center) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the range, in float64. Zero always lies inside: padding must stay exact."""
    low = x.min(axis=axes, keepdims=True, initial=0.0).astype(np.float64)
    high = x.max(axis=axes, keepdims=True, initial=0.0).astype(np.float64)
    if center == "zero":
        high = np.maximum(high, -low)
        low = -high
    elif center == "mean":
        count = x.size // max(low.size, 1)
        mean = x.sum(axis=axes, keepdims=True, dtype=np.float64) / max(count, 1)
        reach = np.maximum(high - mean, mean - low)
        low, high = np.minimum(mean - reach, 0.0), np.maximum(mean + reach, 0.0)
    return low, high


def _grid(low: np.ndarray, high: np.ndarray, bits: int, center: Center) -> _Grid:
    """Spread the integers over a range."""
    top = 2 ** (bits - 1) - 1 if center == "zero" else 2**bits - 1
    scale = (high if center == "zero" else high - low) / top
    # All-zero slices would divide by zero, subnormal ones overflow; at the other end the ends must stay finite.
    scale = np.minimum(np.where(scale < 1e-30, 1.0, scale), _LARGEST / top).astype(np.float32)
    if center == "zero":
        return _Grid(scale, None, -top, top)
    return _Grid(scale, np.clip(np.rint(-low / scale), 0, top).astype(np.float32), 0, top)


def _integers(x: np.ndarray, grid: _Grid, rounding: Rounding, out: np.ndarray | None = None) -> np.ndarray:
    """The integers that stand for x, still as float32."""
    out = np.divide(x, grid.scale, out=np.empty_like(x) if out is None else out)
    if grid.zero is not None:
        out += grid.zero
    (np.floor if rounding == "floor" else np.rint)(out, out=out)
    return np.clip(out, grid.lowest, grid.highest, out=out)


def _cancelled(x: np.ndarray, grid: _Grid, integers: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Let rounding errors cancel in each kernel: the axes behind outputs and inputs; matrices have none."""
    positions = int(np.prod(x.shape[2:], dtype=np.int64))
    if x.ndim < 3 or positions == 1 or not set(range(2, x.ndim)) <= set(axes):
        return integers
    wanted = x / grid.scale
    if grid.zero is not None:
        wanted += grid.zero
    flat = cancel_errors(wanted.reshape(-1, positions), integers.reshape(-1, positions), grid.lowest, grid.highest)
    return flat.reshape(x.shape)


def _best_shrink(
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    bits: int,
    axes: tuple[int, ...],
    center: Center,
    rounding: Rounding,
) -> np.ndarray:
    """The part of each range that gives the least squared error, in the shape of ``low``."""
    # Slices are brought near 1 by powers of two, which changes no digit: squares neither overflow nor vanish.
    _, exponent = np.frexp(np.maximum(high, -low))
    x, low, high = np.ldexp(x, -exponent), np.ldexp(low, -exponent), np.ldexp(high, -exponent)
    best, chosen = np.full(low.shape, np.inf), np.ones(low.shape)
    work = np.empty_like(x)
    for shrink in _SHRINK:
        grid = _grid(low * shrink, high * shrink, bits, center)
        _integers(x, grid, rounding, out=work)
        if grid.zero is not None:
            work -= grid.zero
        work *= grid.scale
        work -= x
        np.square(work, out=work)
        error = work.sum(axis=axes, keepdims=True, dtype=np.float64)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, shrink, chosen)
    return chosen


# Half-quadratic steps: the norm of the errors, how fast the penalty grows, and how often.
_NORM, _PENALTY, _GROWTH, _STEPS = 0.7, 1e2, 1.05, 20


def _half_quadratic(x: np.ndarray, grid: _Grid, axes: tuple[int, ...], rounding: Rounding) -> _Grid:
    """Fit scales to the integers with few large errors left out of account, and round again, in turns.

    The error is counted in a norm below 1, so outliers weigh little. Its split into a quadratic part and a shrunk
    remainder is solved in closed form (Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning
    Models", 2023; there zero points are fitted, which are whole numbers here, so scales are). A slice keeps its scale
    where the squared error would grow.
    """
    best, start = grid.scale.astype(np.float64), grid
    least = np.full(best.shape, np.inf)
    penalty = _PENALTY
    for _ in range(_STEPS):
        steps = _integers(x, grid, rounding) - (0 if grid.zero is None else grid.zero)
        residual = (x - steps * grid.scale).astype(np.float64)
        error = np.square(residual).sum(axis=axes, keepdims=True)
        best = np.where(error < least, grid.scale, best)
        least = np.minimum(error, least)
        size = np.abs(residual) / grid.scale
        kept = np.maximum(size - np.power(np.maximum(size, 1e-9), _NORM - 1) / penalty, 0)
        outlying = np.sign(residual) * kept * grid.scale
        power = np.square(steps, dtype=np.float64).sum(axis=axes, keepdims=True)
        fit = ((x - outlying) * steps).sum(axis=axes, keepdims=True) / np.maximum(power, 1e-30)
        usable = (power > 0) & (fit > 0.5 * start.scale) & (fit < 2 * start.scale)
        grid = replace(grid, scale=np.where(usable, fit, start.scale).astype(np.float32))
        penalty *= _GROWTH
    return replace(grid, scale=best.astype(np.float32))
