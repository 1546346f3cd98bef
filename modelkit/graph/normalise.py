"""Brings a model into the form that every algorithm expects, step by step, each change with its reason."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from modelkit.decision import Decision
from modelkit.graph.fold_batchnorm import fold_batchnorm
from modelkit.graph.fold_constants import fold_constants
from modelkit.graph.fold_transpose import fold_transpose
from modelkit.graph.lift import fix_defaults, lift_constants
from modelkit.graph.names import make_unique
from modelkit.graph.passthrough import remove_passthrough
from modelkit.graph.shapes import infer_shapes


def normalise(model: ir.Model, *, batchnorm: bool = True) -> list[Decision]:
    """Clean a model up without changing what it computes, in place.

    In this order: defaults of inputs become constants, ``Constant`` nodes become initializers,
    ``Identity`` and inference ``Dropout`` go, what only depends on weights is computed, ``Transpose`` of
    shared weights and ``BatchNormalization`` are folded, what nothing reads is removed, names are made
    unique, shapes are inferred. Names, order and declared shapes of inputs and outputs, metadata, and
    opset stay.

    Args:
        model: A model from ``load``, its functions inlined.
        batchnorm: Whether ``BatchNormalization`` is folded; False leaves each a node.

    Returns:
        What was done, and what was left alone although it was looked at.
    """
    decisions = [
        *fix_defaults(model),
        *lift_constants(model),
        *remove_passthrough(model),
        *fold_constants(model),
        *fold_transpose(model),
        *(fold_batchnorm(model) if batchnorm else ()),
        *remove_unused(model),
        *make_unique(model),
    ]
    infer_shapes(model)
    folded = {d.target for d in decisions if d.action == "folded"}
    return [d for d in decisions if d.action != "kept" or d.target not in folded]


def prepare_exactly(model: ir.Model) -> list[Decision]:
    """Make weights plain initializers with names of their own, in place; no number changes, nothing is folded."""
    decisions = [*fix_defaults(model), *lift_constants(model), *make_unique(model)]
    infer_shapes(model)
    return decisions


def remove_unused(model: ir.Model) -> list[Decision]:
    """Remove nodes and initializers that no output depends on, in place."""
    before = _names(model)
    RemoveUnusedNodesPass()(model)
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                del graph.initializers[name]
    after = _names(model)
    return [Decision(name, "removed", "no output depends on it") for name in before if name not in after]


def _names(model: ir.Model) -> dict[str, None]:
    """Names of all initializers and nodes, in order."""
    names: dict[str, None] = {}
    for graph in model.graphs():
        names.update(dict.fromkeys(graph.initializers))
        names.update((n.name or n.outputs[0].name or n.op_type, None) for n in graph)
    return names
