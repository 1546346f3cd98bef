"""Layers as least squares sees them: rows of columns, a matrix, a bias, and where the output ends up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graph.edit import add_initializer, owner_of
from modelkit.graph.layers import Role, weight_uses
from modelkit.graph.tensors import attribute_float, attribute_int, constant_of
from modelkit.linear.matrix import MATRIX_ROLES, Layer, Reading, layer_of, readings_of

_FITTED = {Role.CONV_WEIGHT, Role.GEMM_WEIGHT, Role.MATMUL_WEIGHT}


@dataclass(frozen=True)
class Linear:
    """A Conv, Gemm or MatMul with a constant weight that only it reads.

    Attributes:
        layer: Its weight as matrices.
        reading: What they are multiplied with.
        output: What the node computes.
        axis: Axis of the output that counts channels: 1 for convolutions, -1 for products.
        bias: Where a bias is added: the input of this node or the constant of the Add behind it; None without.
        adder: The Add behind it that holds the bias, if any.
    """

    layer: Layer
    reading: Reading
    output: ir.Value
    axis: int
    bias: ir.Value | None
    adder: ir.Node | None

    @property
    def node(self) -> ir.Node:
        """The node."""
        return self.reading.node

    @property
    def name(self) -> str:
        """What a report calls the layer: its weight."""
        return self.layer.name

    @property
    def takes_bias(self) -> bool:
        """Whether a bias can be set."""
        return self.bias is not None or self.node.op_type in ("Conv", "Gemm")

    def matrices(self) -> np.ndarray:
        """The weight as ``[groups, outputs, columns]``, float64."""
        return self.layer.matrices(self.layer.array()).astype(np.float64) * self._alpha

    def outputs_of(self, values: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """Rows of a tensor laid out as the output, ``[picked, channels]``."""
        if self.axis == 1:
            values = np.moveaxis(values, 1, -1)
        return values.reshape(-1, values.shape[-1])[picked]

    def put(self, matrices: np.ndarray) -> None:
        """Write matrices of the same shape into the weight."""
        value = self.layer.use.value
        old = value.const_value
        assert old is not None
        array = self.layer.stored(matrices / self._alpha).astype(old.dtype.numpy())
        value.const_value = ir.tensor(array, dtype=old.dtype, name=value.name)

    def shift_bias(self, shift: np.ndarray) -> None:
        """Add a number for each output channel to the bias, making one where there is room but none yet."""
        weight = self.layer.use.value.const_value
        assert weight is not None
        if self.bias is None:
            name = f"{self.layer.name}.bias"
            graph = owner_of(self.layer.use.value)
            while name in graph.initializers:
                name += "_"
            array = (shift / self._beta).astype(weight.dtype.numpy())
            self.node.resize_inputs(3)
            self.node.replace_input_with(2, add_initializer(graph, name, array, weight.dtype))
            return
        old = self.bias.const_value
        assert old is not None
        array = (old.numpy().astype(np.float64) + shift / self._beta).astype(old.dtype.numpy())
        self.bias.const_value = ir.tensor(array, dtype=old.dtype, name=self.bias.name)
        self.bias.shape = ir.Shape(array.shape)

    @property
    def bias_per_weight(self) -> float:
        """What a bias must take over of what the weight as it is stored gave: alpha / beta of a Gemm."""
        return self._alpha / self._beta

    @property
    def _beta(self) -> float:
        return attribute_float(self.node, "beta", 1.0) if self.adder is None else 1.0

    @property
    def _alpha(self) -> float:
        return attribute_float(self.node, "alpha", 1.0) if self.node.op_type == "Gemm" else 1.0


def linear_layers(model: ir.Model) -> dict[str, Linear]:
    """The layers of the main graph that can be fitted, in the order in which they run, by the name of the weight."""
    order = {node: number for number, node in enumerate(model.graph)}
    found: list[Linear] = []
    for use in weight_uses(model):
        if use.role not in _FITTED or len(use.consumers) != 1:
            continue
        layer = layer_of(use)
        readings = readings_of(layer, model)
        if isinstance(readings, str) or not readings[0].columns_last or use.consumers[0][1] != 1:
            continue
        node = readings[0].node
        if attribute_int(node, "transA", 0):
            continue
        bias, adder = _bias_of(node)
        if bias is not None and not _is_plain(bias, layer.groups * layer.outputs):
            continue
        found.append(
            Linear(layer, readings[0], node.outputs[0], 1 if use.role == Role.CONV_WEIGHT else -1, bias, adder)
        )
    return {linear.name: linear for linear in sorted(found, key=lambda linear: order[linear.node])}


def observable_layers(model: ir.Model) -> dict[str, Layer]:
    """Every layer whose inputs can be observed, recurrent ones too, by the name of the weight."""
    found = {}
    for use in weight_uses(model):
        if use.role in MATRIX_ROLES and use.channel_axis is not None:
            layer = layer_of(use)
            if not isinstance(readings_of(layer, model), str):
                found[layer.name] = layer
    return found


def _bias_of(node: ir.Node) -> tuple[ir.Value | None, ir.Node | None]:
    if node.op_type != "MatMul":
        return (node.inputs[2] if len(node.inputs) > 2 else None), None
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0][0].op_type != "Add" or node.outputs[0].is_graph_output():
        return None, None
    adder, index = uses[0]
    other = adder.inputs[1 - index]
    tensor = constant_of(other)
    if other is None or tensor is None or len(tensor.shape) != 1 or len(list(other.uses())) != 1:
        return None, None
    return other, adder


def _is_plain(bias: ir.Value, outputs: int) -> bool:
    """Whether a bias is a constant with one number for each output that nothing else reads."""
    tensor = constant_of(bias)
    return (
        tensor is not None
        and bias.is_initializer()
        and len(list(bias.uses())) == 1
        and tuple(tensor.shape.numpy()) in ((outputs,), (1, outputs))
    )


def columns_of(layer: Layer, positions: np.ndarray) -> np.ndarray:
    """Columns of a layer's matrices that positions along the weight's input axis take up.

    Args:
        layer: A layer with one group, or whose groups all read the same columns.
        positions: Input channels, any shape.

    Returns:
        The same shape with an axis for the kernel's positions behind it.
    """
    return positions[..., None] + np.arange(layer.inputs // layer.run) * layer.run
