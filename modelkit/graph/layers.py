"""Which initializer plays which part in which nodes: what quantization and pruning iterate over."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import onnx_ir as ir

from modelkit.graph.tensors import attribute_int, constant_of


class Role(StrEnum):
    """The part that a constant plays in a node.

    ``QUANTIZED`` is integer data that a quantized operator or ``DequantizeLinear`` reads;
    ``QUANTIZATION`` are scales and zero points.
    """

    CONV_WEIGHT = "conv_weight"
    GEMM_WEIGHT = "gemm_weight"
    MATMUL_WEIGHT = "matmul_weight"
    RECURRENT_WEIGHT = "recurrent_weight"
    EMBEDDING = "embedding"
    BIAS = "bias"
    NORM = "norm"
    QUANTIZED = "quantized"
    QUANTIZATION = "quantization"
    OTHER = "other"


WEIGHT_ROLES = frozenset(
    {Role.CONV_WEIGHT, Role.GEMM_WEIGHT, Role.MATMUL_WEIGHT, Role.RECURRENT_WEIGHT, Role.EMBEDDING}
)


@dataclass
class WeightUse:
    """One part that an initializer plays. An initializer with several parts has several uses.

    Attributes:
        value: The initializer.
        role: The part.
        consumers: The nodes that read it in this part, with the index of the input.
        channel_axis: Axis of the output channels (for an embedding: of the rows), non-negative; for
            grouped ConvTranspose it counts the channels of one group. None where there is none.
        reduce_axes: All other axes, those that one channel's numbers extend over.
    """

    value: ir.Value
    role: Role
    consumers: list[tuple[ir.Node, int]] = field(default_factory=list)
    channel_axis: int | None = None
    reduce_axes: tuple[int, ...] = ()


_CONV = {("", "Conv"), ("", "ConvTranspose"), ("", "DeformConv"), ("com.microsoft", "FusedConv")}
_GEMM = {("", "Gemm"), ("com.microsoft", "FusedGemm")}
_MATMUL = {("", "MatMul"), ("com.microsoft", "FusedMatMul")}
_RECURRENT = {"LSTM", "GRU", "RNN"}
_NORMS = {
    *("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
    *("RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"),
    *("SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"),
}
# Inputs that hold integer data; the other constant inputs are scales, zero points or a bias.
_QUANTIZED_INPUTS = {
    "DequantizeLinear": (0,),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (1,),
    "DynamicQuantizeLSTM": (1, 2),
    "MatMulNBits": (1,),
    "GatherBlockQuantized": (0,),
    "QGemm": (0, 3),
    "QAttention": (1,),
    "QuantizeLinear": (),
}


def weight_uses(model: ir.Model) -> list[WeightUse]:
    """List every initializer of a normalised model with the parts it plays, subgraphs included.

    Returns:
        In the order in which graphs store their initializers; for one value, in the order of its
        consumers. Initializers that nothing reads, or that are inputs, are left out.
    """
    uses: list[WeightUse] = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            if constant_of(value) is not None:
                uses.extend(_uses_of(value))
    return uses


def _uses_of(value: ir.Value) -> list[WeightUse]:
    found: dict[tuple[Role, int | None], WeightUse] = {}
    for node, index in value.uses():
        role, axis = role_of(value, node, index)
        use = found.get((role, axis))
        if use is None:
            rank = len(value.const_value.shape) if value.const_value is not None else 0
            axes = () if axis is None else tuple(a for a in range(rank) if a != axis)
            use = found[role, axis] = WeightUse(value, role, [], axis, axes)
        use.consumers.append((node, index))
    return list(found.values())


def role_of(value: ir.Value, node: ir.Node, index: int) -> tuple[Role, int | None]:
    """Tell which part a constant plays as one input of a node, and its channel axis."""
    tensor = constant_of(value)
    if tensor is None:
        return Role.OTHER, None
    rank = len(tensor.shape)
    key = (node.domain, node.op_type)
    if node.op_type in _QUANTIZED_INPUTS:
        if index in _QUANTIZED_INPUTS[node.op_type]:
            return Role.QUANTIZED, None
        return (Role.BIAS if key == ("", "QLinearConv") and index == 8 else Role.QUANTIZATION), None
    if not tensor.dtype.is_floating_point():
        return Role.OTHER, None
    if key in _CONV and index == 1 and rank > 2:
        return Role.CONV_WEIGHT, 1 if node.op_type == "ConvTranspose" else 0
    if key in _GEMM and index < 2 and rank == 2:
        flipped = bool(attribute_int(node, "transB" if index else "transA", 0))
        return Role.GEMM_WEIGHT, int(flipped != bool(index))
    if key in _MATMUL and index < 2 and rank > 1:
        flipped = bool(attribute_int(node, "transB" if index else "transA", 0))
        last = bool(index) != flipped
        return Role.MATMUL_WEIGHT, rank - 1 if last else rank - 2
    if node.op_type in _RECURRENT and not node.domain:
        if index in (1, 2):
            return Role.RECURRENT_WEIGHT, 1
        return (Role.BIAS if index == 3 else Role.OTHER), None
    if key == ("", "Gather") and index == 0 and rank > 1 and attribute_int(node, "axis", 0) == 0:
        return Role.EMBEDDING, 0
    if (key in _CONV or key in _GEMM) and index == 2:
        return Role.BIAS, None
    if node.op_type in _NORMS:
        return Role.NORM, None
    if key == ("", "Add") and _adds_to_product(node, index):
        return Role.BIAS, None
    return Role.OTHER, None


def _adds_to_product(node: ir.Node, index: int) -> bool:
    """Whether the other input of an Add comes straight from a matrix product or convolution."""
    other = node.inputs[1 - index] if len(node.inputs) == 2 else None
    producer = other.producer() if other is not None else None
    return producer is not None and (producer.domain, producer.op_type) in _CONV | _GEMM | _MATMUL


def input_vocabulary(model: ir.Model) -> dict[str, int]:
    """For each integer input that selects rows of a constant table, the number of rows.

    Looks through Cast, Reshape, Squeeze, Unsqueeze, Flatten and Identity between input and ``Gather``.
    An input that reaches several tables gets the smallest.
    """
    found: dict[str, int] = {}
    for graph in model.graphs():
        for node in graph:
            if node.op_type not in ("Gather", "GatherBlockQuantized") or len(node.inputs) < 2:
                continue
            table, indices = constant_of(node.inputs[0]), node.inputs[1]
            if table is None:
                table = _behind_dequantize(node.inputs[0])
            axis = attribute_int(node, "axis" if not node.domain else "gather_axis", 0)
            if table is None or not table.shape or indices is None:
                continue
            while (producer := indices.producer()) is not None and producer.op_type in _PASSES:
                if producer.inputs[0] is None:
                    break
                indices = producer.inputs[0]
            if indices.is_graph_input() and indices.graph is model.graph:
                name, rows = indices.name or "", table.shape.numpy()[axis]
                found[name] = min(rows, found.get(name, rows))
    return found


_PASSES = {"Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}


def _behind_dequantize(value: ir.Value | None) -> ir.TensorProtocol | None:
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    return constant_of(producer.inputs[0])
