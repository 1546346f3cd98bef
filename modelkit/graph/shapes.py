"""Shape inference that never copies weights and never changes a model's inputs and outputs."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from modelkit.graph.stripped import strip

# Marks values whose shape nobody wrote down: ``save`` leaves it out again, for small files.
INFERRED = "modelkit.inferred"


def infer_shapes(model: ir.Model) -> int:
    """Fill in shapes and types of the values between inputs and outputs, in place.

    Uses onnx's shape inference with data propagation. What it cannot infer stays as it was.

    Returns:
        How many values got a shape or type that they did not have.
    """
    inferred = _infer(strip(model)[0])
    if inferred is None:
        return 0
    found = 0
    for value, other in _pairs(model, inferred):
        if value.is_graph_output() or value.is_graph_input() or value.is_initializer():
            continue
        if value.type is None and other.type is not None:
            value.type = other.type
            found += 1
        if other.shape is not None and value.shape != other.shape:
            if value.shape is None:
                found += 1
                value.meta[INFERRED] = True
            value.shape = other.shape
    return found


def shapes_at_one(model: ir.Model) -> dict[ir.Value, tuple[int, ...]]:
    """Infer all shapes with each symbolic dimension of the inputs set to 1.

    Returns:
        The shapes that are known in full, by the model's values (subgraphs included).
    """
    proto, _ = strip(model)
    for entry in proto.graph.input:
        for dim in entry.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
                dim.dim_value = 1
    # What was inferred for symbolic dimensions would contradict.
    del proto.graph.value_info[:]
    for entry in proto.graph.output:
        entry.type.tensor_type.ClearField("shape")
    inferred = _infer(proto)
    known: dict[ir.Value, tuple[int, ...]] = {}
    pairs = _pairs(model, inferred) if inferred is not None else [(v, v) for v in _values(model).values()]
    for value, other in pairs:
        shape = other.shape if other.shape is not None else None
        if shape is None and value.const_value is not None:
            shape = ir.Shape(value.const_value.shape.numpy())
        if shape is not None and all(isinstance(d, int) and d >= 0 for d in shape):
            known[value] = tuple(int(d) for d in shape if isinstance(d, int))
    return known


def _infer(proto: onnx.ModelProto) -> ir.Model | None:
    """Run onnx's inference; None where it gives up on the whole model."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
        return ir.serde.deserialize_model(inferred)
    except Exception:  # the C++ code raises many classes; a model without shapes is still a model
        return None


def _values(model: ir.Model) -> dict[tuple[int, str], ir.Value]:
    """All values by the number of their graph and their name."""
    values: dict[tuple[int, str], ir.Value] = {}
    for number, graph in enumerate(model.graphs()):
        for value in [*graph.inputs, *graph.initializers.values()]:
            values[number, value.name or ""] = value
        for node in graph:
            for value in node.outputs:
                if value.name:
                    values[number, value.name] = value
    return values


def _pairs(model: ir.Model, inferred: ir.Model) -> list[tuple[ir.Value, ir.Value]]:
    """Pair each value of a model with the value of the same name in its inferred twin."""
    twins = _values(inferred)
    return [(value, twins[key]) for key, value in _values(model).items() if key in twins]
