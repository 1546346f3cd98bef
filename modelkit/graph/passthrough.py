"""Removes nodes that only pass their input on: ``Identity``, and ``Dropout`` outside training."""

from __future__ import annotations

import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.tensors import constant_of, opset_of


def remove_passthrough(model: ir.Model) -> list[Decision]:
    """Remove ``Identity`` and inference ``Dropout`` nodes where no name of an output is lost, in place."""
    decisions: list[Decision] = []
    opset = opset_of(model)
    for graph in model.graphs():
        for node in list(graph):
            if _only_passes(node, opset) and bypass(node):
                name = node.name or node.outputs[0].name or node.op_type
                decisions.append(Decision(name, "removed", f"{node.op_type} only passes its input on"))
    return decisions


def _only_passes(node: ir.Node, opset: int) -> bool:
    if node.domain or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or opset < 7:
        return False
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = constant_of(node.inputs[2])
    return training is not None and not training.numpy().any()


def bypass(node: ir.Node) -> bool:
    """Let a node's consumers read its first input instead of its first output, and remove it.

    Returns:
        False where that would rename an output of a graph or make it an input; nothing changed then.
    """
    source, output, graph = node.inputs[0], node.outputs[0], node.graph
    if source is None or graph is None:
        return False
    if not output.is_graph_output():
        output.replace_all_uses_with(source)
        graph.remove(node, safe=True)
        return True
    producer = source.producer()
    if producer is None or producer.graph is not graph or source.is_graph_output():
        return False
    take_over(output, source)
    graph.remove(node, safe=True)
    return True


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Put a node's output into the place of another value, with its name if that is an output of the graph.

    The node that made ``old`` has to be removed afterwards.
    """
    was_output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if was_output:
        new.name, new.shape, new.type, new.doc_string = old.name, old.shape, old.type, old.doc_string
        new.metadata_props.update(old.metadata_props)
