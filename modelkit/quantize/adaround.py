"""Rounding up or down by what it does to a layer's outputs.

The error of a row of a layer's weight at its outputs is (w - q)ᵀ H (w - q), H being the second moments of what the
layer reads. Which way each weight is rounded is a quadratic binary problem (Nagel et al., "Up or Down? Adaptive
Rounding for Post-Training Quantization", 2020, arXiv:2004.10568, equations 13 and 20). There it is relaxed and
learned by gradients; here weights are moved by one step as long as one of a row lowers its error, the one that lowers
it most first, which needs no learning rate and ends in a local minimum of the problem itself. Large layers start from
GPTQ's rounding (`modelkit.quantize.gptq`), others from the nearest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelkit.linear.matrix import Layer
from modelkit.quantize.affine import Quantized
from modelkit.quantize.gptq import sweep, upper_factor
from modelkit.quantize.spread import limits_of, spread

# From so many inputs on GPTQ's rounding is closer to the end than the nearest, and saves most of the moves.
_GPTQ_FROM = 512
# Numbers that may be looked at in one layer (some seconds): moves times outputs times inputs.
_MOST_WORK = 2e9
# A move must lower the error by more than this part of what a step alone costs in the mean of the row.
_LEAST_GAIN = 1e-4


def round_by_outputs(array: np.ndarray, quantized: Quantized, layer: Layer, moments: np.ndarray) -> Quantized:
    """Choose a weight's integers for the least error at the layer's outputs; scales and zero points stay.

    Args:
        array: The float weight.
        quantized: The weight rounded to nearest.
        layer: The weight as matrices.
        moments: Second moments of the layer's inputs, ``[groups, inputs, inputs]``.
    """
    weights = layer.matrices(array).astype(np.float64)
    scales = layer.matrices(spread(quantized.scale, quantized)).astype(np.float64)
    zeros = np.zeros_like(scales)
    if quantized.zero_point is not None:
        zeros = layer.matrices(spread(quantized.zero_point, quantized)).astype(np.float64)
    lowest, highest = limits_of(quantized)
    integers = layer.matrices(quantized.values).astype(np.float64)
    for group, h in enumerate(moments):
        if layer.inputs >= _GPTQ_FROM:
            parts = weights[group], scales[group], zeros[group]
            integers[group] = sweep(*parts, upper_factor(h), lowest, highest)
        integers[group] = descend(weights[group], integers[group], zeros[group], scales[group], h, lowest, highest)
    return replace(quantized, values=layer.stored(integers).astype(quantized.values.dtype))


def descend(
    weights: np.ndarray,
    integers: np.ndarray,
    zeros: np.ndarray,
    scales: np.ndarray,
    moments: np.ndarray,
    lowest: int,
    highest: int,
) -> np.ndarray:
    """Move integers by one step, one of each row at a time, as long as the rows' errors fall.

    No weight is moved to more than a step from what it stands for: it is rounded up or down.

    Args:
        weights: Float weights, ``[outputs, inputs]``.
        integers: Where to start; changed in place.
        zeros: Zero point of each weight.
        scales: Scale of each weight.
        moments: H, ``[inputs, inputs]``.
        lowest: Smallest integer.
        highest: Largest integer.

    Returns:
        ``integers``. Weights that are zero stay zero.
    """
    fixed, steps, h = weights == 0, scales, moments
    left = weights - (integers - zeros) * scales
    # Half of the gradient of each row's error by its weights; what a step alone costs.
    slope = left @ h
    cost = np.square(scales) * np.diag(h)
    # An input that hardly varies would let its weight drift: what is gained must count in the row.
    least = _LEAST_GAIN * cost.mean(axis=1)
    rows, now = np.arange(len(weights)), integers.copy()
    for _ in range(max(1, int(_MOST_WORK // max(weights.size, 1)))):
        sign = np.sign(slope)
        moved = now + sign
        gain = 2 * steps * np.abs(slope) - cost
        after = np.abs(left - sign * steps)
        gain[fixed | (moved > highest) | (moved < lowest) | ((after >= steps) & (after >= np.abs(left)))] = 0
        each, place = np.arange(len(rows)), gain.argmax(axis=1)
        falls = gain[each, place] > least
        each, place = each[falls], place[falls]
        step = sign[each, place]
        now[each, place] += step
        left[each, place] -= step * steps[each, place]
        # What a step adds to a weight goes off its error.
        slope[each] -= (step * steps[each, place])[:, None] * h[place]
        if 2 * each.size <= len(rows):
            integers[rows] = now
            if not each.size:
                break
            # Rows that have come to rest are left behind.
            rows = rows[each]
            now, left, slope, cost, least, steps, fixed = (
                part[each] for part in (now, left, slope, cost, least, steps, fixed)
            )
    integers[rows] = now
    return integers
