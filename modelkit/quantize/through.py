"""Operators that only move numbers run on the integers themselves, where onnxruntime would go to float and back.

Most of them (Reshape, Transpose, MaxPool, Slice, ...) onnxruntime takes between DequantizeLinear and QuantizeLinear
for what they are, and drops the pair. These it does not, although it has kernels of them for integers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.quantize.plan import Plan

_LEFT_IN_FLOAT = {"Pad", "SpaceToDepth"}


def move_integers(plan: Plan) -> list[Decision]:
    """Take out the pair of DequantizeLinear and QuantizeLinear around such operators, in place.

    Args:
        plan: The plan that ``apply_static`` has carried out; what only moves has one scale before and after.

    Returns:
        A decision for each node that now reads and writes integers.
    """
    decisions: list[Decision] = []
    for node in plan.nodes:
        if node.op_type not in _LEFT_IN_FLOAT:
            continue
        front, behind = _producer(node.inputs[0]), _only_reader(node.outputs[0])
        if front is None or behind is None or behind.op_type != "QuantizeLinear" or not _same_steps(front, behind):
            continue
        integers, output = front.inputs[0], node.outputs[0]
        node.replace_input_with(0, integers)
        if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
            node.resize_inputs(max(len(node.inputs), 3))
            node.replace_input_with(2, front.inputs[2])  # the integer that stands for zero
        output.type = behind.outputs[0].type
        behind.outputs[0].replace_all_uses_with(output)
        assert behind.graph is not None and front.graph is not None
        behind.graph.remove(behind, safe=True)
        if not front.outputs[0].uses() and not front.outputs[0].is_graph_output():
            front.graph.remove(front, safe=True)
        label = str(node.name or output.name)
        decisions.append(Decision(label, "moved", f"{node.op_type} on integers, without the conversions around it"))
    return decisions


def _producer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes a value, or None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" and len(node.inputs) > 2 else None


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = list(value.uses())
    return readers[0].node if len(readers) == 1 and not value.is_graph_output() else None


def _same_steps(front: ir.Node, behind: ir.Node) -> bool:
    """Whether both use one scale and one zero point."""
    for one, other in zip(front.inputs[1:3], behind.inputs[1:3], strict=True):
        if one is None or other is None or one.const_value is None or other.const_value is None:
            return False
        if not np.array_equal(one.const_value.numpy(), other.const_value.numpy()):
            return False
    return True
