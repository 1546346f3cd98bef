"""Lets a Gemm read a shared weight transposed, instead of transposing it at each run."""

from __future__ import annotations

import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.tensors import attribute_int, constant_of

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def fold_transpose(model: ir.Model) -> list[Decision]:
    """Fold ``Transpose`` nodes of two-dimensional weights into all their consumers, in place.

    A ``Gemm`` flips its ``transA`` or ``transB``; a ``MatMul`` with two-dimensional data becomes a
    ``Gemm``. For a weight that nothing else reads ``fold_constants`` has done better before.
    """
    decisions: list[Decision] = []
    for graph in model.graphs():
        for node in list(graph):
            weight = constant_of(node.inputs[0]) if node.op_type == "Transpose" and not node.domain else None
            if weight is None or len(weight.shape) != 2 or weight.dtype not in _FLOATS:
                continue
            output = node.outputs[0]
            uses = list(output.uses())
            perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else (1, 0)
            if output.is_graph_output() or tuple(perm) != (1, 0) or not all(_can_flip(n, i) for n, i in uses):
                continue
            ops = " and ".join(sorted({user.op_type for user, _ in uses}))
            for user, index in uses:
                _flip(user, index, node.inputs[0])
            graph.remove(node, safe=True)
            decisions.append(
                Decision(
                    node.name or output.name or "Transpose",
                    "folded",
                    f"the {ops} behind it reads the weight transposed",
                )
            )
    return decisions


def _can_flip(node: ir.Node, index: int) -> bool:
    if node.domain or index > 1 or len({id(v) for v in node.inputs[:2]}) < 2:
        return False
    if node.op_type == "Gemm":
        return True
    data = node.inputs[0]
    return (
        node.op_type == "MatMul"
        and index == 1
        and data is not None
        and data.shape is not None
        and len(data.shape) == 2
    )


def _flip(node: ir.Node, index: int, weight: ir.Value | None) -> None:
    name = "transB" if index else "transA"
    node.replace_input_with(index, weight)
    node.attributes[name] = ir.AttrInt64(name, 1 - attribute_int(node, name, 0))
    node.op_type = "Gemm"
