"""Repairs missing and repeated names."""

from __future__ import annotations

import onnx_ir as ir

from modelkit.decision import Decision


def make_unique(model: ir.Model) -> list[Decision]:
    """Give each value and node a name that no other has, in the whole model, in place.

    ONNX allows two branches of an ``If`` to use the same name. Tools that keep tensors by name then
    mix them up. Inputs and outputs of the model keep their names.

    Returns:
        One decision for each name that was repeated; names given to nameless nodes are not listed.
    """
    decisions: list[Decision] = []
    taken: set[str] = set()
    fixed = {id(v) for v in [*model.graph.inputs, *model.graph.outputs]}
    taken.update(v.name or "" for v in [*model.graph.inputs, *model.graph.outputs])
    node_names: set[str] = set()
    for graph in model.graphs():
        values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
        seen: set[int] = set()
        for value in values:
            # An output without a name is one that the node does not give.
            if (
                id(value) in seen
                or id(value) in fixed
                or (not value.name and value.producer() is not None and not value.uses())
            ):
                continue
            seen.add(id(value))
            old = value.name or "value"
            new = _free(old, taken)
            if new != value.name:
                value.name = new
                decisions.append(Decision(new, "renamed", f"'{old}' was the name of two tensors"))
        for node in graph:
            new = _free(node.name or node.op_type, node_names)
            if new != node.name:
                node.name = new
    return decisions


def _free(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
