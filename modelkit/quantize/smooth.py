"""Smoothing: outliers of activations are moved into the weights that read them, without changing outputs.

A few channels behind a normalisation are often many times as large as the others, and 8 bits that must reach them
leave little for the rest. Weights spread evenly: dividing channel j of the activation by s_j and multiplying the
weights that read it by s_j is exact, and s_j = max|x_j|^a / max|w_j|^(1-a) shares the burden (Xiao et al.,
"SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022, arXiv:2211.10438,
equation 4). The division goes into the LayerNormalization or the linear layer that writes the activation. Here a is
searched for each activation, by the error of the products with both sides in integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelkit.algorithm.activations import fitting_rows, stream
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.graph.edit import Namer, drop_unused_initializers, renew_initializer
from modelkit.graph.tensors import attribute_int
from modelkit.progress import Progress, silent
from modelkit.quantize.affine import dequantize, quantize_array

# Values of a that are tried; beside them, leaving everything as it is.
_ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Rows of an activation that are looked at, and samples that they come from.
_ROWS, _SAMPLES = 512, 128
# What a must save of the error to be worth a change.
_WORTH = 0.98


@dataclass
class _Place:
    """An activation that can be smoothed.

    Attributes:
        makers: Nodes whose constants are divided, each with the positions of those constants.
        value: The activation.
        readers: The products that read it.
    """

    makers: list[tuple[ir.Node, tuple[int, ...]]]
    value: ir.Value
    readers: list[ir.Node]
    rows: list[np.ndarray] = field(default_factory=list)
    peak: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """Take in a batch: the largest magnitude of each channel, and a few rows."""
        flat = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
        peak = np.abs(flat).max(axis=0)
        self.peak = peak if self.peak is None else np.maximum(self.peak, peak)
        left = _ROWS - sum(len(each) for each in self.rows)
        if left > 0:
            self.rows.append(flat[:: max(1, len(flat) // 32)][:left])


def can_smooth(model: ir.Model) -> bool:
    """Whether a model has activations that can be smoothed."""
    return next(_places(model), None) is not None


def smooth(model: ir.Model, data: Dataset, bits: int, progress: Progress = silent) -> list[Decision]:
    """Smooth every activation that gains by it, in place; outputs stay the same up to rounding.

    Args:
        model: A normalised float model.
        data: Calibration data; the first 128 samples are used.
        bits: Bits of the weights that read the activations.
        progress: Told how far it is.

    Returns:
        A decision for each activation that was smoothed, with a and how much error is left.
    """
    places = {str(place.value.name): place for place in _places(model)}
    if not places:
        return []
    rows = fitting_rows(model, list(places), data, most=8)
    for seen in stream(
        model,
        list(places),
        lambda: data.batches(rows, _SAMPLES),
        count=min(_SAMPLES, data.count),
        step="smoothing",
        progress=progress,
    ):
        places[seen.name].add(seen.values)
    namer = Namer(model)
    decisions = []
    for name, place in places.items():
        found = _search(place, bits)
        if found is None:
            continue
        alpha, scale, share = found
        _apply(place, scale, namer)
        decisions.append(
            Decision(
                name,
                "smoothed",
                f"outliers moved into {len(place.readers)} weight{'s' if len(place.readers) > 1 else ''}",
                {"alpha": alpha, "error_left": round(share, 4), "largest_scale": round(float(scale.max()), 3)},
            )
        )
    drop_unused_initializers(model)
    return decisions


def _places(model: ir.Model) -> Iterator[_Place]:
    for node in model.graph:
        if node.domain:
            continue
        makers = _linear(node) if node.op_type in ("Add", "Relu") else _norm(node)
        if not makers:
            continue
        value = node.outputs[0]
        readers = _readers(value)
        width = len(_vector(makers[0][0], makers[0][1][-1]))
        if readers and width > 1 and all(len(_rows_of(each)) == width for each in readers):
            yield _Place(makers, value, readers)


def _norm(node: ir.Node) -> list[tuple[ir.Node, tuple[int, ...]]] | None:
    """A normalisation of the last axis, with the scale and shift that it applies."""
    if node.op_type != "LayerNormalization" or attribute_int(node, "axis", -1) != -1:
        return None
    positions = tuple(each for each in (1, 2) if each < len(node.inputs) and node.inputs[each] is not None)
    return [(node, positions)] if all(_is_constant(node.inputs[each]) for each in positions) else None


def _linear(node: ir.Node) -> list[tuple[ir.Node, tuple[int, ...]]] | None:
    """The MatMul and the sum in front of an activation, Relu or none, where nothing else reads what is between."""
    if node.op_type == "Relu":
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        if before is None or before.domain or before.op_type != "Add" or not _only(before.outputs[0]):
            return None
        return _linear(before)
    for position, other in ((0, 1), (1, 0)):
        product, bias = node.inputs[position], node.inputs[other]
        maker = None if product is None else product.producer()
        if maker is None or maker.domain or maker.op_type != "MatMul" or not _only(maker.outputs[0]):
            continue
        if _is_matrix(maker.inputs[1]) and _is_constant(bias) and len(bias.shape) == 1:  # type: ignore[union-attr, arg-type]
            width = int(maker.inputs[1].shape[1])  # type: ignore[union-attr, index, arg-type]
            return [(maker, (1,)), (node, (other,))] if int(bias.shape[0]) == width else None  # type: ignore[union-attr, index, arg-type]
    return None


def _only(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _is_constant(value: ir.Value | None) -> bool:
    return (
        value is not None
        and value.is_initializer()
        and not value.is_graph_input()
        and value.dtype == ir.DataType.FLOAT
    )


def _is_matrix(value: ir.Value | None) -> bool:
    return _is_constant(value) and len(value.shape or ()) == 2  # type: ignore[union-attr]


def _readers(value: ir.Value) -> list[ir.Node]:
    """The products that read an activation; none where something else reads it too."""
    found: list[ir.Node] = []
    for node, index in value.uses():
        plain = node.op_type == "MatMul" or (
            node.op_type == "Gemm"
            and not attribute_int(node, "transA", 0)
            and node.attributes.get_float("alpha", 1.0) == 1.0
        )
        if node.domain or not plain or index != 0 or not _is_matrix(node.inputs[1]):
            return []
        found.append(node)
    return [] if value.is_graph_output() else found


def _vector(node: ir.Node, position: int) -> np.ndarray:
    array = node.inputs[position].const_value.numpy()  # type: ignore[union-attr]
    return array if array.ndim == 1 else np.empty(0)


def _rows_of(node: ir.Node) -> np.ndarray:
    """The weight of a product, ``[inputs, outputs]``."""
    weight = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    turned = node.op_type == "Gemm" and attribute_int(node, "transB", 0)
    return weight.T if turned else weight


def _search(place: _Place, bits: int) -> tuple[float, np.ndarray, float] | None:
    """The best a, its scales and the share of the error that is left; None where nothing is gained."""
    if place.peak is None:
        return None
    x = np.concatenate(place.rows)
    weights = [_rows_of(node) for node in place.readers]
    heavy = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    usable = (place.peak > 0) & (heavy > 0)
    exact = [x @ weight for weight in weights]
    start = _error(x, place.peak, weights, exact, np.ones_like(heavy), bits)
    best: tuple[float, np.ndarray, float] | None = None
    least = _WORTH * start
    for alpha in _ALPHAS:
        ratio = np.where(usable, place.peak, 1) ** alpha / np.where(usable, heavy, 1) ** (1 - alpha)
        scale = np.where(usable, ratio, 1)
        scale = np.clip(scale / np.exp(np.log(scale).mean()), 1e-3, 1e3).astype(np.float32)
        error = _error(x, place.peak, weights, exact, scale, bits)
        if error < least:
            least, best = error, (alpha, scale, error / start)
    return best


def _error(
    x: np.ndarray,
    peak: np.ndarray,
    weights: Sequence[np.ndarray],
    exact: Sequence[np.ndarray],
    scale: np.ndarray,
    bits: int,
) -> float:
    """Squared error of the products with activations in 8 bits and weights in ``bits``, both after smoothing."""
    step = max(float((peak / scale).max()) / 127, 1e-30)
    rounded = np.clip(np.rint(x / scale / step), -127, 127) * step
    total = 0.0
    for weight, wanted in zip(weights, exact, strict=True):
        restored = dequantize(quantize_array(weight * scale[:, None], bits=bits, reduce_axes=(0,)))
        total += float(
            np.square(rounded @ restored - wanted, dtype=np.float64).sum() / max(np.square(wanted).sum(), 1e-30)
        )
    return total


def _apply(place: _Place, scale: np.ndarray, namer: Namer) -> None:
    for node, positions in place.makers:
        for position in positions:
            array = node.inputs[position].const_value.numpy()  # type: ignore[union-attr]
            renew_initializer(node, position, array / scale, namer)
    for node in place.readers:
        array = _rows_of(node) * scale[:, None]
        turned = node.op_type == "Gemm" and attribute_int(node, "transB", 0)
        renew_initializer(node, 1, array.T if turned else array, namer)
