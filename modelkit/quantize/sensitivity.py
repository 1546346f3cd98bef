"""Which layers suffer most in integers: each is quantized alone, and the noise it adds to the outputs measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.graph.run import session_of
from modelkit.progress import Progress, silent

# Samples and groups of layers; more of either would cost minutes on large models and seldom change the order.
SAMPLES = 24
GROUPS = 64


def rank_layers(
    model: ir.Model,
    layers: Sequence[str],
    quantize_only: Callable[[ir.Model, frozenset[str]], None],
    data: Dataset,
    *,
    progress: Progress = silent,
) -> dict[str, float]:
    """Order layers from the most to the least sensitive.

    Args:
        model: The float model.
        layers: Names of the layers that could be quantized, in graph order.
        quantize_only: Quantizes a copy of the model in place, leaving the layers of the set in float.
        data: Calibration data; the first samples are used.
        progress: Called after each layer.

    Returns:
        All names, ties in graph order, each with the signal to noise in decibels of the outputs (at most 200) where
        only its group of layers computes with integers.
    """
    size = max(1, -(-len(layers) // GROUPS))
    groups = [list(layers[start : start + size]) for start in range(0, len(layers), size)]
    batches = list(data.batches(8, limit=SAMPLES))
    session = session_of(model)
    reference = [session.run(None, batch.inputs)[0] for batch in batches]
    noise: list[float] = []
    for index, group in enumerate(groups):
        progress("ranking layers by sensitivity", index, len(groups))
        copy = model.clone()
        quantize_only(copy, frozenset(layers) - frozenset(group))
        session = session_of(copy)
        error = 0.0
        for batch, expected in zip(batches, reference, strict=True):
            got = session.run(None, batch.inputs)[0]
            difference = got.astype(np.float64) - expected
            error += float(np.square(difference[np.isfinite(difference)]).sum())
        noise.append(error)
    progress("ranking layers by sensitivity", len(groups), len(groups))
    order = sorted(range(len(groups)), key=lambda index: (-noise[index], index))
    signal = sum(float(np.square(each[np.isfinite(each)], dtype=np.float64).sum()) for each in reference)
    decibels = [min(10 * math.log10(max(signal, 1e-300) / max(error, 1e-300)), 200.0) for error in noise]
    return {name: round(decibels[index], 2) for index in order for name in groups[index]}
