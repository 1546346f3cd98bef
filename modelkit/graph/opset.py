"""Raises a model's operator set, and only raises it."""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.edit import Namer, make_node
from modelkit.graph.lift import lift_constants
from modelkit.graph.names import make_unique
from modelkit.graph.shapes import INFERRED, infer_shapes
from modelkit.graph.stripped import restore, strip
from modelkit.graph.tensors import attribute_int, opset_of


def ensure_opset(model: ir.Model, version: int) -> Decision | None:
    """Upgrade a model to a version of the standard operator set where it is older, in place.

    Uses onnx's own converter, which knows the steps of each operator and enters subgraphs. It gets the
    model without its large weights. ``model.graph`` is replaced: values and nodes held by the caller
    are those of the old graph afterwards.

    Args:
        model: A model from ``load``, its functions inlined.
        version: The least version wanted.

    Returns:
        What was done; None where the model is new enough.

    Raises:
        ModelError: An operator in the model has no way up.
    """
    current = opset_of(model)
    if current >= version:
        return None
    _refuse_wrong_steps(model, current, version)
    if current < 7 <= version:
        _spread_slopes(model, version)
    # Before version 4 of the format each initializer had to be an input too, and the converter insists on it.
    model.ir_version = max(model.ir_version, 4)
    proto, kept = strip(model)
    try:
        upgraded = ir.serde.deserialize_model(onnx.version_converter.convert_version(proto, version))
        restore(upgraded, kept)
    except Exception as error:  # the C++ converter raises RuntimeError and others
        raise ModelError(
            f"the model cannot be raised from opset {current} to {version}: {_reason(error)}",
            f"export the model with opset {version} or newer",
        ) from error
    _carry_over(model.graph, upgraded.graph)
    model.graph = upgraded.graph
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", version)], ignore_unknown=True)
    model.ir_version = max(model.ir_version, least)
    # The converter writes axes and the like as Constant nodes.
    lift_constants(model)
    make_unique(model)
    infer_shapes(model)
    return Decision(
        "model",
        "upgraded",
        f"opset {current} lacks what opset {version} has",
        {"from": current, "to": version},
    )


def _refuse_wrong_steps(model: ir.Model, current: int, version: int) -> None:
    """Refuse operators whose meaning changes on the way although onnx's converter calls them compatible.

    Until opset 13 Hardmax worked on the input flattened to two dimensions. The two agree on the last axis.
    """
    if not current < 13 <= version:
        return
    for graph in model.graphs():
        for node in graph:
            if node.op_type != "Hardmax" or node.domain:
                continue
            axis = attribute_int(node, "axis", 1)
            rank = len(node.inputs[0].shape) if node.inputs[0] is not None and node.inputs[0].shape is not None else 0
            if axis == -1 or axis == rank - 1:
                node.attributes["axis"] = ir.AttrInt64("axis", -1)
                continue
            raise ModelError(
                f"the Hardmax node '{node.name}' means something else from opset 13 on",
                f"export the model with opset {version} or newer",
            )


def _spread_slopes(model: ir.Model, version: int) -> None:
    """Give slopes of PRelu the shape that newer versions broadcast: one for each channel is ``[C, 1, ...]``.

    Until opset 7 ``[C]`` meant the second axis of the input; since then it means the last one.
    """
    namer = Namer(model)
    for graph in model.graphs():
        for node in graph:
            if node.op_type != "PRelu" or node.domain:
                continue
            data, slope = node.inputs
            if data is None or slope is None or data.shape is None or slope.shape is None:
                raise ModelError(
                    f"the PRelu node '{node.name}' means something else from opset 7 on",
                    f"export the model with opset {version} or newer",
                )
            if len(data.shape) <= 2 or len(slope.shape) != 1 or slope.shape[0] == 1:
                continue
            axes: dict[str, object] = {"axes": list(range(1, len(data.shape) - 1))}
            name = namer(f"{slope.name}_spread")
            spread = make_node("Unsqueeze", [slope], [name], name=name, attributes=axes)
            graph.insert_before(node, spread)
            node.replace_input_with(1, spread.outputs[0])


def _reason(error: Exception) -> str:
    """Shorten what the converter says to what concerns the model."""
    text = " ".join(str(error).split())
    text = re.sub(r"^.*?(Assertion .*? failed|\[ShapeInferenceError\])[:.]?\s*", "", text)
    return text[:200] or type(error).__name__


def _carry_over(old: ir.Graph, new: ir.Graph) -> None:
    """Copy what the converter drops: metadata of graphs, nodes and values, declared shapes of outputs."""
    new.metadata_props.update(old.metadata_props)
    nodes = {v.name: n for n in old.all_nodes() for v in n.outputs if v.name}
    values = {v.name: v for n in old.all_nodes() for v in n.outputs if v.name}
    for node in new.all_nodes():
        for value in node.outputs:
            if value.name not in values or values[value.name].shape is None or values[value.name].meta.get(INFERRED):
                value.meta[INFERRED] = True
            if value.name in nodes:
                node.metadata_props.update(nodes[value.name].metadata_props)
                value.metadata_props.update(values[value.name].metadata_props)
                value.doc_string = value.doc_string or values[value.name].doc_string
    for ours, theirs in [
        *zip(old.inputs, new.inputs, strict=True),
        *zip(old.outputs, new.outputs, strict=True),
    ]:
        theirs.shape, theirs.type, theirs.doc_string = ours.shape, ours.type, ours.doc_string
        theirs.metadata_props.update(ours.metadata_props)
    for name, value in old.initializers.items():
        if name in new.initializers:
            new.initializers[name].doc_string = value.doc_string
            new.initializers[name].metadata_props.update(value.metadata_props)
