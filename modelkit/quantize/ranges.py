"""Cutting a range out of a histogram: min-max, percentile, entropy (KL) or least squared error."""

from __future__ import annotations

from typing import Literal

import numpy as np

from modelkit.quantize.calibrate import BINS, Histogram

RangeMethod = Literal["minmax", "percentile", "entropy", "mse"]


def choose_range(
    histogram: Histogram,
    method: RangeMethod,
    *,
    percentile: float = 99.99,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """Return (low, high), low <= 0 <= high, that 8-bit integers should span.

    Args:
        histogram: What calibration saw.
        method: ``minmax`` covers everything; ``percentile`` keeps that share of the values, split over
            both ends; ``entropy`` minimises the KL divergence between the histogram and its quantized form
            (Migacz, "8-bit Inference with TensorRT", 2017); ``mse`` the expected squared error.
        percentile: Share kept by ``percentile``, in percent.
        within: Ends that contain zero; what lies beyond makes no difference and gets no integers.
    """
    if histogram.reach == 0.0:
        return 0.0, 0.0
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    low, high = max(low, within[0]), min(high, within[1])
    if method == "percentile":
        low, high = _percentile(histogram, percentile, low, high)
    elif method == "entropy":
        threshold = _entropy_threshold(histogram, low, high)
        low, high = max(low, -threshold), min(high, threshold)
    elif method == "mse":
        low, high = _least_squares(histogram, low, high, within)
    return low, high


def _percentile(histogram: Histogram, percentile: float, low: float, high: float) -> tuple[float, float]:
    total = histogram.counts.sum() + histogram.zeros
    tail = (1 - percentile / 100) * total / (2 if low < 0 < high else 1)
    cumulated = np.cumsum(histogram.counts)
    width = 2 * histogram.reach / BINS
    if low < 0:
        first = int(np.searchsorted(cumulated, tail, side="right"))
        low = max(low, min((first - BINS // 2) * width, 0.0))
    if high > 0:
        beyond = cumulated[-1] - cumulated
        last = int(np.argmax(beyond <= tail))
        high = min(high, max((last + 1 - BINS // 2) * width, 0.0))
    return low, high


def _least_squares(histogram: Histogram, low: float, high: float, within: tuple[float, float]) -> tuple[float, float]:
    centers, counts = histogram.centers(), histogram.counts.astype(np.float64)
    filled = (counts > 0) & (centers >= within[0]) & (centers <= within[1])
    centers, counts = centers[filled], counts[filled]
    best, chosen = np.inf, (low, high)
    for shrink in np.linspace(1.0, 0.2, 81):
        lo, hi = low * shrink, high * shrink
        scale = (hi - lo) / 255 or 1.0
        zero = np.clip(np.rint(-lo / scale), 0, 255)
        restored = (np.clip(np.rint(centers / scale + zero), 0, 255) - zero) * scale
        error = float((counts * np.square(restored - centers)).sum())
        if error < best:
            best, chosen = error, (lo, hi)
    return chosen


def _entropy_threshold(histogram: Histogram, low: float, high: float) -> float:
    """Threshold on |x| at which the quantized histogram is closest to the original in KL divergence."""
    half = BINS // 2
    magnitude = (histogram.counts[half:] + histogram.counts[:half][::-1]).astype(np.float64)
    # 2,048 bins as in the original: finer ones are mostly empty and make the divergence noisy.
    magnitude = magnitude.reshape(2048, -1).sum(axis=1)
    width = histogram.reach / 2048
    top = int(np.max(np.nonzero(magnitude)[0], initial=0)) + 1
    # Integers on the longer side of zero: 128 where both sides are alike, 255 where there is only one.
    levels = round(255 * max(-low, high) / (high - low))
    best, best_bins = np.inf, top
    for bins in dict.fromkeys([*range(levels, top, 8), top]):
        clipped = magnitude[:bins].copy()
        clipped[-1] += magnitude[bins:].sum()
        divergence = _kl(clipped, _requantized(magnitude[:bins], levels))
        if divergence < best:
            best, best_bins = divergence, bins
    return best_bins * width


def _requantized(counts: np.ndarray, levels: int) -> np.ndarray:
    """Merge bins into levels and spread each level's mass evenly over its non-empty bins."""
    level = np.arange(counts.size) * levels // counts.size
    filled = counts > 0
    mass = np.bincount(level, weights=counts, minlength=levels)
    holders = np.bincount(level, weights=filled, minlength=levels)
    share = np.divide(mass, holders, out=np.zeros_like(mass), where=holders > 0)
    return np.where(filled, share[level], 0.0)


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    p, q = p / p.sum(), q / max(q.sum(), 1e-300)
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], 1e-12))).sum())
