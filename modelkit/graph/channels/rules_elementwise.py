"""Ops that treat each position by itself, with broadcasting."""

from __future__ import annotations

import onnx_ir as ir

from modelkit.graph.channels.walk import Operand, Walk

# f(0) = 0: a channel that was set to zero stays zero.
_KEEP_ZERO = frozenset(
    {
        *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "HardSwish", "Swish", "Softsign", "Tanh"),
        *("ThresholdedRelu", "Shrink", "PRelu", "Identity", "Dropout", "Cast", "CastLike", "Abs", "Neg", "Sign"),
        *("Sqrt", "Floor", "Ceil", "Round", "Sin", "Tan", "Asin", "Atan", "Sinh", "Asinh", "Atanh", "Erf"),
        *("FastGelu", "BiasGelu", "QuickGelu"),
    }
)
UNARY = _KEEP_ZERO | {
    *("Sigmoid", "HardSigmoid", "Softplus", "Exp", "Log", "Reciprocal", "Cos", "Acos", "Cosh", "Acosh", "Not"),
    *("Clip", "IsNaN", "IsInf", "BitwiseNot"),
}
NARY = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Mean", "Sum", "Where", "PRelu", "And", "Or"),
        *("Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift", "BitwiseAnd"),
        *("BitwiseOr", "BitwiseXor"),
    }
)


def describe(node: ir.Node) -> str:
    """Name a node for a reason."""
    return f"{node.op_type} '{node.name or node.outputs[0].name}'"


def unary(walk: Walk, node: ir.Node) -> None:
    """The first output has the ids of the first input; Clip's bounds are single numbers."""
    source = node.inputs[0]
    layout = walk.layout(source)
    if layout is None:
        walk.freeze_inputs(node, f"the shape of the input of {describe(node)} is not known")
        walk.layouts[node.outputs[0]] = None
        return
    for output in node.outputs[1:]:
        if output.uses() or output.is_graph_output():
            walk.relations.freeze(layout.ids(), f"{describe(node)} has a second output")
    walk.put(node.outputs[0], layout.blocks, describe(node))
    assert source is not None
    walk.vanishes[node.outputs[0]] = walk.vanishes.get(source, False) and node.op_type in _KEEP_ZERO


def nary(walk: Walk, node: ir.Node) -> None:
    """All inputs are aligned at their last axes."""
    present = [value for value in node.inputs if value is not None]
    layouts = [walk.layout(value) for value in present]
    rank = max((layout.rank for layout in layouts if layout is not None), default=0)
    output = node.outputs[0]
    if any(layout is None for layout in layouts) or walk.plain(output) is None:
        walk.freeze_inputs(node, f"the shapes around {describe(node)} are not known")
        walk.layouts[output] = None
        return
    known = [layout for layout in layouts if layout is not None]
    if walk.model.opset_imports.get("", 1) < 7 and "axis" in node.attributes:
        walk.freeze_inputs(node, f"{describe(node)} broadcasts in the way of old opsets")
        return
    operands = [Operand(layout, tuple(range(rank - layout.rank, rank))) for layout in known]
    walk.put(
        output,
        walk.merge(operands, f"{describe(node)} combines it with something that cannot shrink"),
        describe(node),
    )
    zeros = [walk.vanishes.get(value, False) for value in present]
    match node.op_type:
        case "Mul" | "And":
            walk.vanishes[output] = any(zeros)
        case "Div" | "Pow" | "PRelu" | "Mod" | "BitShift":
            walk.vanishes[output] = zeros[0]
        case "Add" | "Sub" | "Sum" | "Mean" | "Max" | "Min" | "Or" | "Xor":
            walk.vanishes[output] = all(zeros)
        case _:
            walk.vanishes[output] = False
