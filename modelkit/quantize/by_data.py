"""Rounding weights by what their layers read: second moments on data, a few layers at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.graph.layers import WeightUse
from modelkit.linear.grams import LayerGram, collect
from modelkit.linear.matrix import MATRIX_ROLES, Layer, layer_of
from modelkit.progress import Progress, silent
from modelkit.quantize.adaround import round_by_outputs
from modelkit.quantize.affine import Quantized
from modelkit.quantize.config import DataRounding
from modelkit.quantize.gptq import round_with_data

# Samples that show a layer's inputs, and inputs beyond which their moments are not kept (float64: 2 GB).
_SAMPLES, _MOST_INPUTS = 256, 16384
# Moments that are held at a time; more layers than fit take another pass over the samples.
_HELD_BYTES = 256 << 20


def observe_layers(
    model: ir.Model, uses: Sequence[WeightUse], data: Dataset, progress: Progress = silent
) -> Iterator[tuple[Layer, LayerGram]]:
    """Hand out layers with the second moments of their inputs on the first 256 samples.

    Args:
        model: The float model.
        uses: Weights; those that are no matrices, or that cannot be observed, are left out.
        data: Inputs.
        progress: Told how far it is.
    """
    layers = [layer_of(use) for use in uses if use.role in MATRIX_ROLES]
    for part in _parts([layer for layer in layers if layer.inputs <= _MOST_INPUTS]):
        grams = collect(model, part, data, limit=_SAMPLES, progress=progress)
        for layer in part:
            if layer.name in grams:
                yield layer, grams[layer.name]


def round_layer(
    rounding: DataRounding, quantized: Quantized, layer: Layer, gram: LayerGram, *, centered: bool = False
) -> Quantized:
    """Round a layer's weight by what it reads.

    Args:
        rounding: How.
        quantized: The weight rounded to nearest.
        layer: The weight.
        gram: Second moments of the layer's inputs.
        centered: Whether a bias makes up for the mean of the error, so that only what varies counts.
    """
    assert gram.xtx is not None
    moments = gram.xtx / max(gram.count, 1)
    if centered:
        moments = moments - np.einsum("gi,gj->gij", gram.mean, gram.mean)
    how = round_with_data if rounding == "gptq" else round_by_outputs
    return how(layer.array(), quantized, layer, moments)


def _parts(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Divide layers so that the moments of each part fit."""
    part: list[Layer] = []
    held = 0
    for layer in layers:
        size = 8 * layer.groups * layer.inputs**2
        if part and held + size > _HELD_BYTES:
            yield part
            part, held = [], 0
        part.append(layer)
        held += size
    if part:
        yield part
