"""Which nodes of a graph compute with integers in static mode, and which of their tensors are quantized.

onnxruntime runs a node as an integer kernel when its inputs come from DequantizeLinear and its output goes to
QuantizeLinear. Anything else between two such nodes costs a conversion to float and back, so a node that is no
layer joins only when something that it reads is quantized already and what it writes is wanted quantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.patterns import chosen
from modelkit.quantize.affine import dequantize, quantize_array
from modelkit.quantize.hard import HARD, slope_and_shift

# Nodes that multiply by a constant weight.
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Nodes that move numbers without changing them: input and output share one scale.
MOVING = {
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Gather",
    "DepthToSpace",
    "SpaceToDepth",
    "Expand",
    "Tile",
    "Pad",
    "Resize",
    "Identity",
}
# Nodes that onnxruntime has integer kernels for.
ARITHMETIC = {"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "LeakyRelu", "Sigmoid", *HARD}
# Activations that disappear into the range of the tensor they write.
ABSORBED = {"Relu", "Clip"}
# Relative error that nine tenths of the factors in a constant must keep to.
_FACTOR_ERROR = 0.05


@dataclass
class Plan:
    """What will be quantized.

    Attributes:
        nodes: Nodes that compute with integers.
        activations: Values that get QuantizeLinear and DequantizeLinear, in graph order.
        same_scale: For the output of a moving node, the value whose scale it shares.
        decisions: One for each node that does or could take part.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    activations: list[ir.Value] = field(default_factory=list)
    same_scale: dict[str, str] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)


def make_plan(
    model: ir.Model,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    arithmetic: bool = True,
    keep_float: frozenset[str] = frozenset(),
    slow: frozenset[str] = frozenset(),
) -> Plan:
    """Decide node by node.

    Args:
        model: A normalised model.
        include: Name patterns of nodes or weights; empty means all.
        exclude: Name patterns of what stays float.
        arithmetic: False leaves pools, sums and products in float between layers.
        keep_float: Names of nodes to leave in float (found too sensitive).
        slow: Names of nodes to leave in float because that is faster.
    """
    plan = Plan()
    joined: set[ir.Node] = set()
    quantized: set[ir.Value] = set()
    for node in model.graph:
        if node.op_type in WEIGHTED and not node.domain:
            reason = _weighted_reason(node, include, exclude, keep_float)
            if reason is None and _label(node) in slow:
                reason = "measured: the conversions around it cost more than integers gain"
            if reason is not None:
                plan.decisions.append(Decision(_label(node), "kept float", reason))
                continue
            joined.add(node)
            quantized.update(_reads(node))
            if node.op_type == "Conv":
                # MatMul and Gemm hand out floats at no cost: sums of them lose less in float.
                quantized.update(written_by(node))
    for node in model.graph:
        if node.domain or _label(node) in keep_float:
            continue
        reads = _reads(node)
        if node.op_type in MOVING:
            joins = bool(reads) and reads[0] in quantized and _only_moves(node)
        else:
            # Where one operand is quantized, quantizing the others too costs no more than going back to float.
            joins = (
                arithmetic
                and node.op_type in ARITHMETIC
                and "dilations" not in node.attributes  # QLinearAveragePool knows none
                and (node.op_type not in HARD or slope_and_shift(node) is not None)
                and any(value in quantized for value in reads)
                and all(_keeps_in_8_bits(node, value) for value in _constants(node))
            )
        if joins:
            joined.add(node)
            quantized.update(written_by(node))
    _drop_loose_ends(model, joined)
    _fill(model, plan, joined)
    return plan


def absorbed_into(node: ir.Node) -> ir.Node | None:
    """Return the Relu or Clip that alone reads a node's output and can disappear into its range."""
    if node.op_type in MOVING:
        return None  # Its output keeps the scale of its input.
    output = node.outputs[0]
    readers = list(output.consumers())
    if len(readers) != 1 or output.is_graph_output() or readers[0].op_type not in ABSORBED:
        return None
    reader = readers[0]
    if reader.graph is not node.graph or (reader.op_type == "Clip" and _clip_range(reader) is None):
        return None
    return reader


def _clip_range(clip: ir.Node) -> tuple[float, float] | None:
    """Constant bounds of a Clip that contain zero, or None."""
    if "min" in clip.attributes or "max" in clip.attributes:
        low = clip.attributes.get_float("min", float("-inf"))
        high = clip.attributes.get_float("max", float("inf"))
    else:
        bounds = []
        for index, default in ((1, float("-inf")), (2, float("inf"))):
            value = clip.inputs[index] if len(clip.inputs) > index else None
            if value is None:
                bounds.append(default)
            elif value.const_value is not None:
                bounds.append(float(value.const_value.numpy().reshape(-1)[0]))
            else:
                return None
        low, high = bounds
    return (low, high) if low <= 0 <= high else None


def _label(node: ir.Node) -> str:
    return str(node.name or node.outputs[0].name)


def written_by(node: ir.Node) -> list[ir.Value]:
    """The tensor that a node ends in: its outputs, or that of the activation it absorbs."""
    reader = absorbed_into(node)
    if reader is not None:
        return list(reader.outputs)
    # The second output of MaxPool holds positions.
    return [v for v in (node.outputs[:1] if node.op_type == "MaxPool" else node.outputs) if v.name]


def _reads(node: ir.Node) -> list[ir.Value]:
    """Activations that a node reads (not shapes, indices or constants)."""
    if node.op_type in MOVING or node.op_type in WEIGHTED:
        first = node.inputs[0] if node.inputs else None
        return [first] if first is not None and not first.is_initializer() else []
    if node.op_type == "Concat" and _constants(node):
        return []  # A constant operand has no producer that quantizes it.
    return [v for v in node.inputs if v is not None and not v.is_initializer()]


def _constants(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None and v.is_initializer()]


def _keeps_in_8_bits(node: ir.Node, value: ir.Value) -> bool:
    """Whether a constant operand survives one scale for all of its numbers."""
    if value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT:
        return False
    array = value.const_value.numpy()
    if not np.isfinite(array).all():
        return False
    # What is added loses no more than the sum, which is cut to 8 bits too; a factor's error is felt in proportion.
    factors = array[array != 0] if node.op_type == "Mul" else array[:0]
    if not factors.size:
        return True
    restored = dequantize(quantize_array(array, center="range"))[array != 0]
    return float(np.quantile(np.abs(restored / factors - 1), 0.9)) <= _FACTOR_ERROR


def _only_moves(node: ir.Node) -> bool:
    """Whether a node of MOVING really hands numbers on unchanged, with nothing but zeros between them."""
    if node.op_type == "MaxPool":
        return len(node.outputs) == 1 or not node.outputs[1].uses()
    if node.op_type == "Resize":
        cropped = node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
        return node.attributes.get_string("mode", "nearest") == "nearest" and not cropped
    if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        constant = value.const_value if value is not None and value.is_initializer() else None
        return value is None or (constant is not None and not constant.numpy().any())
    return True


def _weighted_reason(
    node: ir.Node, include: Sequence[str], exclude: Sequence[str], keep_float: frozenset[str]
) -> str | None:
    weight = node.inputs[1]
    activation = node.inputs[0]
    if activation is None or activation.is_initializer():
        return "its left operand is the constant"
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return "multiplies two activations"
    if weight.const_value.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.const_value.dtype.name.lower()}"
    if node.op_type == "MatMul" and len(weight.const_value.shape) != 2:
        return "its weight is not a matrix"
    if node.op_type == "Gemm" and (
        node.attributes.get_float("alpha", 1.0) != 1.0
        or node.attributes.get_float("beta", 1.0) != 1.0
        or node.attributes.get_int("transA", False)
    ):
        return "scaled or transposed Gemm"
    if node.op_type == "ConvTranspose":
        return "onnxruntime has no integer kernel for ConvTranspose"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (not bias.is_initializer() or bias.const_value is None):
        return "its bias is computed at run time"
    if bias is not None and not _one_number_per_output(node, bias.const_value, weight.const_value):  # type: ignore[arg-type]
        return "its bias is not one number for each output"
    if _label(node) in keep_float:
        return "too sensitive: in integers it cost more fidelity than the budget allows"
    return chosen([_label(node), str(weight.name)], include, exclude)


def _one_number_per_output(node: ir.Node, bias: ir.TensorProtocol, weight: ir.TensorProtocol) -> bool:
    shape, outputs = tuple(bias.shape), weight.shape[channel_axis(node)]
    return shape in ((), (1,), (1, 1), (outputs,), (1, outputs))


def channel_axis(node: ir.Node) -> int:
    """Axis of a layer's weight that counts its outputs."""
    return 0 if node.op_type == "Conv" or node.attributes.get_int("transB", False) else 1


def _drop_loose_ends(model: ir.Model, joined: set[ir.Node]) -> None:
    """Take out moving and arithmetic nodes that no integer layer reads from, last ones first."""
    for node in reversed(list(model.graph)):
        if node not in joined or node.op_type in WEIGHTED:
            continue
        readers = [reader for value in written_by(node) for reader in value.consumers()]
        if not any(reader in joined for reader in readers):
            joined.discard(node)


def _wanted(node: ir.Node, value: ir.Value, joined: set[ir.Node]) -> bool:
    """Whether what an integer node writes is to be quantized."""
    if node.op_type not in ("MatMul", "Gemm"):
        return True  # There is no integer convolution, pool or sum that hands out floats.
    # MatMul and Gemm can: only a reader in integers is worth the loss of precision.
    return any(reader in joined for reader in value.consumers())


def _fill(model: ir.Model, plan: Plan, joined: set[ir.Node]) -> None:
    """List the values to quantize: everything that an integer node reads, and writes for another to read."""
    values: dict[ir.Value, None] = {}
    for node in model.graph:
        if node not in joined:
            continue
        plan.nodes.append(node)
        for value in _reads(node):
            values.setdefault(value)
        for value in written_by(node):
            if _wanted(node, value, joined):
                values.setdefault(value)
        if node.op_type in MOVING:
            for value in written_by(node):
                plan.same_scale[str(value.name)] = str(node.inputs[0].name)  # type: ignore[union-attr]
        plan.decisions.append(Decision(_label(node), "int8", f"{node.op_type} in an integer kernel"))
    plan.activations = list(values)
