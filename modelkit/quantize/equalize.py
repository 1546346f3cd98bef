"""Cross-layer equalisation: even out the ranges of the channels between two layers, without changing outputs.

Relu passes positive scales through, so channel i of a layer can be divided by s and the next layer's weights for it
multiplied by s. s = sqrt(r1/r2) gives both layers the same range for the channel (Nagel et al. 2019,
arXiv:1906.04721, section 4.1).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, drop_unused_initializers, renew_initializer

# Repeated until scales settle; chains of layers pass scales along one layer at a time.
_ROUNDS = 20
_SETTLED = 1e-3


def equalize(model: ir.Model) -> list[Decision]:
    """Equalise every pair of layers that allows it, in place.

    A pair is a Conv or Gemm whose output reaches one other Conv or Gemm through Relu, LeakyRelu, PRelu-free
    pooling or nothing at all, with weights and biases that no other node reads.

    Returns:
        A decision for each pair, with the largest scale.
    """
    pairs = [(first, second) for first in model.graph if (second := _partner(first)) is not None]
    if not pairs:
        return []
    weights = _Weights(model)
    totals = [np.ones(_channels(first)) for first, _ in pairs]
    for _ in range(_ROUNDS):
        settled = True
        for index, (first, second) in enumerate(pairs):
            scale = weights.balance(first, second)
            totals[index] = totals[index] * scale
            settled = settled and bool(np.abs(scale - 1).max() < _SETTLED)
        if settled:
            break
    weights.write()
    drop_unused_initializers(model)
    return [
        Decision(
            str(first.name or first.outputs[0].name),
            "equalised",
            f"channel ranges evened out with {second.name or second.outputs[0].name}",
            {"largest_scale": round(float(np.maximum(total, 1 / total).max()), 3)},
        )
        for (first, second), total in zip(pairs, totals, strict=True)
    ]


_PASSES = {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity"}


def _layer(node: ir.Node) -> bool:
    """Whether a node is a Conv or Gemm with constants of its own."""
    if node.domain or node.op_type not in ("Conv", "Gemm") or node.inputs[1] is None:
        return False
    if node.op_type == "Gemm" and (
        node.attributes.get_float("alpha", 1.0) != 1.0
        or node.attributes.get_float("beta", 1.0) != 1.0
        or node.attributes.get_int("transA", False)
    ):
        return False
    own = [value for value in node.inputs[1:3] if value is not None]
    if len(own) > 1 and own[1].const_value is not None and own[1].const_value.size not in (1, _channels(node)):
        return False  # A Gemm may add a whole matrix.
    return all(
        value.is_initializer() and len(value.uses()) == 1 and value.dtype == ir.DataType.FLOAT for value in own
    )


def _partner(first: ir.Node) -> ir.Node | None:
    if not _layer(first):
        return None
    value = first.outputs[0]
    while True:
        readers = list(value.consumers())
        if len(readers) != 1 or value.is_graph_output() or len(value.uses()) != 1:
            return None
        reader = readers[0]
        if reader.graph is not first.graph:
            return None
        if reader.op_type in _PASSES and not reader.domain:
            value = reader.outputs[0]
            continue
        if reader.op_type != first.op_type or not _layer(reader) or reader.inputs[0] is not value:
            return None
        inputs = _input_channels(reader)
        return reader if inputs == _channels(first) else None


def _groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1


def _transposed(node: ir.Node) -> bool:
    return node.op_type == "Conv" or bool(node.attributes.get_int("transB", False))


def _channels(node: ir.Node) -> int:
    shape = node.inputs[1].const_value.shape.numpy()  # type: ignore[union-attr]
    return int(shape[0] if _transposed(node) else shape[1])


def _input_channels(node: ir.Node) -> int:
    shape = node.inputs[1].const_value.shape.numpy()  # type: ignore[union-attr]
    return int(shape[1] if _transposed(node) else shape[0]) * _groups(node)


class _Weights:
    """Weights and biases being scaled, written back once at the end.

    Args:
        model: The model that they belong to.
    """

    def __init__(self, model: ir.Model) -> None:
        self._namer = Namer(model)
        self._arrays: dict[ir.Node, list[np.ndarray | None]] = {}

    def _of(self, node: ir.Node) -> list[np.ndarray | None]:
        if node not in self._arrays:
            found = [
                None if value is None else value.const_value.numpy().astype(np.float32)  # type: ignore[union-attr]
                for value in node.inputs[1:3]
            ]
            # From here on, weights are [outputs, inputs, ...] for every operator.
            assert found[0] is not None
            if not _transposed(node):
                found[0] = found[0].T
            self._arrays[node] = found
        return self._arrays[node]

    def balance(self, first: ir.Node, second: ir.Node) -> np.ndarray:
        """Scale one pair; returns what each channel was divided by."""
        one, two = self._of(first), self._of(second)
        assert one[0] is not None and two[0] is not None
        out_range = np.abs(one[0]).reshape(one[0].shape[0], -1).max(axis=1)
        in_range = self._input_range(two[0], _groups(second))
        usable = (out_range > 0) & (in_range > 0)
        ratio = np.divide(out_range, in_range, out=np.ones_like(out_range), where=usable)
        scale = np.clip(np.sqrt(ratio), 1e-3, 1e3)
        one[0] = one[0] / scale.reshape(-1, *[1] * (one[0].ndim - 1))
        if len(one) > 1 and one[1] is not None:
            one[1] = np.broadcast_to(one[1].reshape(-1), scale.shape) / scale
        two[0] = self._scaled_inputs(two[0], scale, _groups(second))
        return scale.astype(np.float64)

    @staticmethod
    def _input_range(weight: np.ndarray, groups: int) -> np.ndarray:
        grouped = np.abs(weight).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return grouped.max(axis=(1, 3)).reshape(-1)

    @staticmethod
    def _scaled_inputs(weight: np.ndarray, scale: np.ndarray, groups: int) -> np.ndarray:
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        factor = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (grouped * factor).reshape(weight.shape)

    def write(self) -> None:
        """Put the scaled numbers into the graph under new names."""
        for node, arrays in self._arrays.items():
            for position, array in enumerate(arrays, start=1):
                value = node.inputs[position] if position < len(node.inputs) else None
                if array is None or value is None:
                    continue
                if position == 1 and not _transposed(node):
                    array = array.T
                renew_initializer(node, position, array, self._namer)
