"""Residual blocks whose shortcut is what comes in, and the graph without some of them."""

from __future__ import annotations

import onnx_ir as ir

from modelkit.graph.normalise import remove_unused
from modelkit.graph.tensors import constant_of

_LAYERS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}


def blocks(model: ir.Model) -> dict[str, tuple[ir.Node, ir.Value]]:
    """Blocks that may be left out: x + F(x), where F has a layer with weights.

    Args:
        model: A normalised model.

    Returns:
        By the name of the sum: its node, and the value that takes its place.
    """
    found = {}
    for node in model.graph:
        if node.op_type != "Add" or node.domain or len(node.inputs) != 2 or not node.name:
            continue
        one, other = node.inputs
        if one is None or other is None or constant_of(one) is not None or constant_of(other) is not None:
            continue
        for shortcut, branch in ((one, other), (other, one)):
            if _has_layer_between(shortcut, branch) and not _crosses(shortcut, branch):
                found[node.name] = (node, shortcut)
    return found


def without(model: ir.Model, names: frozenset[str]) -> None:
    """Leave blocks out of a model, in place.

    Args:
        model: A model.
        names: Names of blocks, as ``blocks`` gives them.
    """
    there = blocks(model)
    for name in sorted(names):
        node, shortcut = there[name]
        output = node.outputs[0]
        # A block left out before may have been what this one's shortcut was.
        replacement = node.inputs[0] if node.inputs[0] is shortcut else node.inputs[1]
        assert replacement is not None
        ir.convenience.replace_all_uses_with(output, replacement)
        if output.is_graph_output():
            position = [id(v) for v in model.graph.outputs].index(id(output))
            replacement.name, output.name = output.name, f"{output.name}_left_out"
            model.graph.outputs[position] = replacement
        there = blocks(model)
    remove_unused(model)


def _has_layer_between(shortcut: ir.Value, branch: ir.Value) -> bool:
    """Whether a value is computed from another one, with a layer on the way."""
    seen: set[ir.Value] = set()
    todo = [(branch, False)]
    while todo:
        value, layer = todo.pop()
        if value is shortcut:
            if layer:
                return True
            continue
        producer = value.producer()
        if value in seen or producer is None:
            continue
        seen.add(value)
        layer = layer or producer.op_type in _LAYERS
        todo += [(v, layer) for v in producer.inputs if v is not None]
    return False


def _crosses(shortcut: ir.Value, branch: ir.Value) -> bool:
    """Whether the shortcut itself is computed from the branch, which then is no branch."""
    return branch is not shortcut and _has_layer_between(branch, shortcut)
