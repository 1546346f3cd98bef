"""Rounding with data: each weight makes up for the rounding of those before it, as seen by the layer's outputs.

The error of a row is (w - q)ᵀ H (w - q), H being the second moments of the layer's inputs. Columns are rounded from
left to right; what rounding one of them costs is undone as well as possible by those to its right, which the inverse
Cholesky factor of H tells (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", 2022, arXiv:2210.17323, section 3). Then the scales are fitted anew to the integers, by least squares
under the same H, and the columns are rounded once more; the best of all rounds counts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelkit.linear.factor import inverse_factor
from modelkit.linear.matrix import Layer
from modelkit.quantize.affine import Quantized
from modelkit.quantize.spread import limits_of, spread

# Part of the mean of H's diagonal that is added to it, as in the paper.
_DAMPING = 0.01
# Columns after which the rest of the matrix learns of their errors: one large product instead of many small ones.
_BLOCK = 128
_ROUNDS = 3
# Multiplications beyond which scales are not fitted anew (some seconds).
_MOST_FITTING = 2e10


def round_with_data(array: np.ndarray, quantized: Quantized, layer: Layer, moments: np.ndarray) -> Quantized:
    """Choose a weight's integers, and its scales, for the least error at the layer's outputs.

    Args:
        array: The float weight.
        quantized: The weight rounded to nearest; its bits, blocks and zero points stay.
        layer: The weight as matrices.
        moments: Second moments of the layer's inputs, ``[groups, inputs, inputs]``.

    Returns:
        The better of ``quantized`` and what was found, judged by the error at the outputs.
    """
    weights = layer.matrices(array).astype(np.float64)
    scales = layer.matrices(spread(quantized.scale, quantized)).astype(np.float64)
    zeros = np.zeros_like(scales)
    lowest, highest = limits_of(quantized)
    if quantized.zero_point is not None:
        zeros = layer.matrices(spread(quantized.zero_point, quantized)).astype(np.float64)
    integers = layer.matrices(quantized.values).astype(np.float64)
    blocks = layer.matrices(spread(np.arange(quantized.scale.size).reshape(quantized.scale.shape), quantized))
    best = (float("inf"), integers, scales)
    uppers = [upper_factor(each) for each in moments]
    for number in range(_ROUNDS + 1):
        if number:
            # The first round judges what was there.
            integers = np.stack(
                [sweep(*each, lowest, highest) for each in zip(weights, scales, zeros, uppers, strict=True)]
            )
        fitted = _fitted(weights, integers - zeros, blocks, moments, scales)
        for candidate in (scales, fitted):
            error = _error(weights - (integers - zeros) * candidate, moments)
            if error < best[0]:
                best = (error, integers, candidate)
        scales = fitted
    _, integers, scales = best
    found = layer.stored(integers).astype(quantized.values.dtype)
    flat = np.empty(quantized.scale.size, dtype=np.float32)
    flat[blocks.reshape(-1)] = scales.reshape(-1)
    return replace(quantized, values=found, scale=flat.reshape(quantized.scale.shape))


def upper_factor(moments: np.ndarray) -> np.ndarray:
    """Upper Cholesky factor of the inverse of the damped H, ``[inputs, inputs]``."""
    return inverse_factor(
        moments + np.eye(len(moments)) * (_DAMPING * float(np.trace(moments)) / len(moments) + 1e-12)
    )


def sweep(
    weights: np.ndarray, scales: np.ndarray, zeros: np.ndarray, upper: np.ndarray, lowest: int, highest: int
) -> np.ndarray:
    """Round the columns of ``[outputs, inputs]`` one by one; returns the integers."""
    left, result = weights.copy(), np.empty_like(weights)
    count = weights.shape[1]
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.empty((len(weights), end - start))
        for column in range(start, end):
            scale, zero = scales[:, column], zeros[:, column]
            rounded = np.clip(np.rint(left[:, column] / scale) + zero, lowest, highest)
            result[:, column] = rounded
            error = (left[:, column] - (rounded - zero) * scale) / upper[column, column]
            left[:, column + 1 : end] -= np.outer(error, upper[column, column + 1 : end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    return result


def _error(difference: np.ndarray, moments: np.ndarray) -> float:
    return float(sum(np.einsum("oi,oi->", rows @ h, rows) for rows, h in zip(difference, moments, strict=True)))


def _fitted(
    weights: np.ndarray, steps: np.ndarray, blocks: np.ndarray, moments: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Scales that bring ``steps`` closest to the weights under H: least squares, row by row.

    A scale is kept where the fit would turn it round or shrink it to nothing, and all are where one scale belongs to
    several rows.
    """
    groups, outputs, inputs = weights.shape
    if blocks[0, 0].min() == blocks[0, -1].min() or groups * outputs * inputs**2 > _MOST_FITTING:
        return scales
    result = scales.copy()
    for group in range(groups):
        for row in range(outputs):
            starts = np.unique(blocks[group, row], return_inverse=True)[1]
            basis = np.zeros((inputs, starts.max() + 1))
            basis[np.arange(inputs), starts] = steps[group, row]
            seen = moments[group] @ basis
            normal, right = basis.T @ seen, seen.T @ weights[group, row]
            normal[np.diag_indices_from(normal)] += 1e-9 * np.trace(normal) / len(normal) + 1e-30
            fit = np.linalg.solve(normal, right)[starts]
            old = scales[group, row]
            result[group, row] = np.where((fit > 0.5 * old) & (fit < 2 * old), fit, old)
    return result
