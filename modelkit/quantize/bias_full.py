"""Bias correction on the quantized model itself: each layer's mean output is brought back to the original's.

What earlier layers and the rounding of activations do to a layer's mean is corrected with it, which the rounding
error of its own weights does not tell. Layers are corrected in the order in which they run, because each changes what
the next ones read (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.2 and appendix D, "empirical"; NNCF's slow bias correction does the same).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from modelkit.algorithm.activations import fitting_rows, stream
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress, silent

# Samples that tell the means: no more than this, and of a deep model only as many as bound all passes together.
_SAMPLES, _ENOUGH, _RUNS = 128, 16, 2048
_INT32 = 2**31 - 1


def correct_biases(
    model: ir.Model, original: ir.Model, layers: Mapping[ir.Node, str], data: Dataset, progress: Progress = silent
) -> list[Decision]:
    """Shift the integer biases of a static model so that mean outputs are the original's, in place.

    Args:
        model: What ``apply_static`` made.
        original: The float model that it was made of.
        layers: Its Conv and Gemm nodes in the order in which they run, with the names that their outputs have in
            ``original``; those without an integer bias are left out.
        data: Calibration data; the first 128 samples are used, of more than 16 layers in a row fewer.
        progress: Told how far it is.

    Returns:
        A decision with how many layers were corrected, and the largest shift relative to its layer's spread.
    """
    open_layers = [node for node in layers if _stored(node) is not None]
    steps = _by_depth(open_layers)
    limit = min(_SAMPLES, max(_ENOUGH, _RUNS // max(len(steps), 1)))
    wanted = _means(original, {layers[node]: node for node in open_layers}, data, limit, progress)
    largest = 0.0
    for step in steps:
        found = _means(model, {str(node.outputs[0].name): node for node in step}, data, limit, progress)
        for node in step:
            if node in wanted and node in found:
                (mean, spread), (now, _) = wanted[node], found[node]
                _shift(node, now - mean)
                largest = max(largest, float(np.abs(now - mean).max()) / max(spread, 1e-12))
    if not open_layers:
        return []
    reason = f"mean outputs of {len(open_layers)} layers brought back to the original's on data"
    return [Decision("biases", "corrected", reason, {"largest_shift": round(largest, 4)})]


def _by_depth(layers: Sequence[ir.Node]) -> list[list[ir.Node]]:
    """Group layers so that none reads, however indirectly, what another of its group writes."""
    wanted, groups = set(layers), list[list[ir.Node]]()
    depths: dict[ir.Node, int] = {}
    graph = layers[0].graph if layers else None
    for node in graph if graph is not None else ():
        before = [depths.get(maker, 0) for value in node.inputs if value is not None and (maker := value.producer())]
        depths[node] = max(before, default=0) + (node in wanted)
        if node in wanted:
            if depths[node] > len(groups):
                groups.append([])
            groups[depths[node] - 1].append(node)
    return groups


def _means(
    model: ir.Model, layers: Mapping[str, ir.Node], data: Dataset, limit: int, progress: Progress
) -> dict[ir.Node, tuple[np.ndarray, float]]:
    """Mean of each channel, float64, and the standard deviation of the whole, of layers by the names of outputs."""
    names = list(layers)
    axes = {name: 1 if node.op_type == "Conv" else -1 for name, node in layers.items()}
    sums: dict[str, np.ndarray] = {}
    squares: dict[str, float] = {}
    counts: dict[str, int] = {}
    rows = fitting_rows(model, names, data, most=8)
    for seen in stream(
        model,
        names,
        lambda: data.batches(rows, limit),
        count=min(limit, data.count),
        step="correcting biases",
        progress=progress,
    ):
        values, axis = seen.values, axes[seen.name] % seen.values.ndim
        others = tuple(each for each in range(values.ndim) if each != axis)
        sums[seen.name] = sums.get(seen.name, 0) + values.sum(axis=others, dtype=np.float64)
        squares[seen.name] = squares.get(seen.name, 0.0) + float(np.square(values, dtype=np.float64).sum())
        counts[seen.name] = counts.get(seen.name, 0) + values.size // values.shape[axis]
    found: dict[ir.Node, tuple[np.ndarray, float]] = {}
    for name, total in sums.items():
        mean = total / counts[name]
        power = squares[name] / (counts[name] * mean.size)
        found[layers[name]] = mean, float(np.sqrt(max(power - float(mean.mean()) ** 2, 0.0)))
    return found


def _stored(node: ir.Node) -> ir.Node | None:
    """The node that restores a layer's integer bias; None where there is none."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    front = None if bias is None else bias.producer()
    if node.op_type not in ("Conv", "Gemm") or front is None or front.op_type != "DequantizeLinear":
        return None
    return front if front.inputs[0] is not None and front.inputs[0].is_initializer() else None


def _shift(node: ir.Node, shift: np.ndarray) -> None:
    """Take a shift of the mean outputs, ``[channels]``, off a layer's bias."""
    front = _stored(node)
    assert front is not None
    stored, scale = front.inputs[0], front.inputs[1]
    assert stored is not None and scale is not None
    integers = stored.const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    steps = scale.const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    moved = np.clip(np.rint(integers - shift / steps), -_INT32, _INT32).astype(np.int32)
    stored.const_value = ir.tensor(moved, name=str(stored.name))
