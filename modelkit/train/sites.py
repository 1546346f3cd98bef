"""Where a quantized graph holds what training may move: integer weights and biases, and the steps of all integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_ir as ir

from modelkit.graph.tensors import constant_of
from modelkit.train.ops.dtypes import NARROW
from modelkit.train.ops.quantized import RANGES

_LAYERS = ("Conv", "Gemm", "MatMul")
_WEIGHT_TYPES = (ir.DataType.INT8, ir.DataType.UINT8, *NARROW)


@dataclass(frozen=True)
class Weight:
    """Integers of a weight, and how they come of float numbers.

    Attributes:
        stored: Initializer of the integers.
        scale: Initializer of the step, or of one step for each slice of the axis.
        axis: That axis.
        zero: Integer that stands for zero, in the shape of the scale; None where it is 0 everywhere.
        low: Smallest integer.
        high: Largest integer.
        floats: The numbers that the integers stand for, float32.
    """

    stored: str
    scale: str
    axis: int
    zero: np.ndarray | None
    low: int
    high: int
    floats: np.ndarray


@dataclass(frozen=True)
class Bias:
    """Integers of a bias: its step is the product of two others.

    Attributes:
        stored: Initializer of the integers.
        scale: Initializer of the step.
        activation: Initializer of the step of what its layer reads.
        weight: Initializer of the step of its layer's weight.
        floats: The numbers that the integers stand for, float32.
    """

    stored: str
    scale: str
    activation: str
    weight: str
    floats: np.ndarray


@dataclass
class Sites:
    """What training may move in a quantized graph.

    Attributes:
        weights: Integer weights of Conv, Gemm and MatMul.
        biases: Their integer biases.
        activations: Initializers of the steps of activations, each with the largest integer and the number of values
            that one sample has there, as far as it is known.
    """

    weights: list[Weight] = field(default_factory=list)
    biases: list[Bias] = field(default_factory=list)
    activations: dict[str, tuple[int, int]] = field(default_factory=dict)


def find_sites(graph: ir.Graph, bits: int) -> Sites:
    """Look for QuantizeLinear and DequantizeLinear whose numbers can be trained.

    Args:
        graph: A graph; it is only read.
        bits: Bits of a signed weight, 2 to 8: it spans ±(2^(bits-1) - 1), and -2^(bits-1) where it is there already.
    """
    sites = Sites()
    for node in graph:
        if node.op_type == "QuantizeLinear":
            _add_activation(sites, node)
        elif node.op_type == "DequantizeLinear":
            weight = _weight(node, bits)
            if weight is not None and all(weight.stored != other.stored for other in sites.weights):
                sites.weights.append(weight)
    known = {weight.scale for weight in sites.weights}
    for node in graph:
        bias = _bias(node) if node.op_type in _LAYERS else None
        if bias is not None and bias.weight in known and bias.activation in sites.activations:
            sites.biases.append(bias)
    return sites


def _add_activation(sites: Sites, node: ir.Node) -> None:
    """Take in the step of an activation, where all that turn it back share it."""
    value, scale = node.inputs[0], node.inputs[1]
    readers = [reader for reader, _ in node.outputs[0].uses()]
    if value is None or value.is_initializer() or not _is_step(scale):
        return
    if any(reader.op_type == "DequantizeLinear" and reader.inputs[1] is not scale for reader in readers):
        return
    assert scale is not None
    if scale.const_value.size != 1:  # type: ignore[union-attr]
        return
    dtype = node.outputs[0].dtype
    top = RANGES[dtype][1] if dtype in RANGES else 255
    known = [size for size in (value.shape or ())[1:] if isinstance(size, int)]
    count = max(1, prod(known))
    sites.activations[str(scale.name)] = (top, max(count, sites.activations.get(str(scale.name), (0, 0))[1]))


def _weight(node: ir.Node, bits: int) -> Weight | None:
    """The weight that a DequantizeLinear restores, if it is one of a layer."""
    stored, scale = node.inputs[0], node.inputs[1]
    tensor = constant_of(stored)
    if stored is None or tensor is None or tensor.dtype not in _WEIGHT_TYPES or not _is_step(scale):
        return None
    if node.attributes.get_int("block_size", 0) or len(stored.uses()) != 1:
        return None
    if not any(reader.op_type in _LAYERS and index == 1 for reader, index in node.outputs[0].uses()):
        return None
    assert scale is not None
    integers = tensor.numpy().astype(np.int16)
    low, high = RANGES[tensor.dtype]
    if low < 0:
        high = min(high, 2 ** (bits - 1) - 1)
        low = -high - int((integers == -high - 1).any())  # the odd one is used by other tools
    zero = _zero(node)
    axis = node.attributes.get_int("axis", 1)
    floats = _restored(node, integers)
    return Weight(str(stored.name), str(scale.name), axis, zero if zero.any() else None, low, high, floats)


def _bias(layer: ir.Node) -> Bias | None:
    """The integer bias of a layer, if what its layer reads and its weight have steps of their own."""
    activation, weight, front = (_front(layer, index) for index in range(3))
    if activation is None or weight is None or front is None:
        return None
    stored, tensor = front.inputs[0], constant_of(front.inputs[0])
    if stored is None or tensor is None or tensor.dtype != ir.DataType.INT32 or not _is_step(front.inputs[1]):
        return None
    if len(front.outputs[0].uses()) != 1 or len(stored.uses()) != 1:
        return None
    scale, read, weighed = (str(node.inputs[1].name) for node in (front, activation, weight))  # type: ignore[union-attr]
    return Bias(str(stored.name), scale, read, weighed, _restored(front, tensor.numpy()))


def _front(layer: ir.Node, index: int) -> ir.Node | None:
    """The DequantizeLinear that an input of a layer comes from, or None."""
    value = layer.inputs[index] if len(layer.inputs) > index else None
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _is_step(scale: ir.Value | None) -> bool:
    """Whether a scale is a constant that may be trained: one number, or one for each slice."""
    tensor = constant_of(scale)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) <= 1


def _zero(node: ir.Node) -> np.ndarray:
    given = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if given is not None:
        return given.numpy().astype(np.float32)
    return np.zeros(tuple(constant_of(node.inputs[1]).shape), dtype=np.float32)  # type: ignore[union-attr]


def _restored(node: ir.Node, integers: np.ndarray) -> np.ndarray:
    """What a DequantizeLinear makes of integers, float32."""
    scale, zero = constant_of(node.inputs[1]).numpy().astype(np.float64), _zero(node)  # type: ignore[union-attr]
    if scale.size > 1:
        shape = [1] * integers.ndim
        shape[node.attributes.get_int("axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    return ((integers - zero.astype(np.float64)) * scale).astype(np.float32)
