"""Shape inference that never copies weights and never changes a model's inputs and outputs."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from modelkit.graph.stripped import strip

# Marks values whose shape nobody wrote down: ``save`` leaves it out again, for small files.
INFERRED = "modelkit.inferred"


def infer_shapes(model: ir.Model, *, outputs: bool = False) -> int:
    """Fill in shapes and types of the values between inputs and outputs, in place.

    Uses onnx's shape inference with data propagation. What it cannot infer stays as it was.

    Args:
        model: The model.
        outputs: Also set the shapes of the model's outputs, which otherwise stay as declared.

    Returns:
        How many values got a shape or type that they did not have.
    """
    inferred = _infer(strip(model)[0])
    if inferred is None:
        return 0
    found = 0
    twins = values_by_name(inferred)
    for key, value in values_by_name(model).items():
        other = twins.get(key)
        if other is None:
            continue
        if value.is_graph_input() or value.is_initializer() or (value.is_graph_output() and not outputs):
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


def _infer(proto: onnx.ModelProto) -> ir.Model | None:
    """Run onnx's inference; None where it gives up on the whole model."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
        return ir.serde.deserialize_model(inferred)
    except Exception:  # the C++ code raises many classes; a model without shapes is still a model
        return None


def values_by_name(model: ir.Model) -> dict[tuple[int, str], ir.Value]:
    """All values by the number of their graph (0 is the main one) and their name."""
    values: dict[tuple[int, str], ir.Value] = {}
    for number, graph in enumerate(model.graphs()):
        for value in [*graph.inputs, *graph.initializers.values()]:
            values[number, value.name or ""] = value
        for node in graph:
            for value in node.outputs:
                if value.name:
                    values[number, value.name] = value
    return values
