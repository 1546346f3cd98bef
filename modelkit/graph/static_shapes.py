"""The shapes of all values for chosen sizes of the symbolic dimensions, computed shapes followed."""

from __future__ import annotations

import onnx_ir as ir

from modelkit.graph.fold_constants import fold_shapes
from modelkit.graph.shapes import values_by_name
from modelkit.graph.stripped import restore, strip


def shapes_at_one(model: ir.Model) -> dict[ir.Value, tuple[int, ...]]:
    """Infer all shapes with each symbolic dimension of the inputs set to 1 (see ``shapes_at``)."""
    return shapes_at(model, 1, 1)


def shapes_at(model: ir.Model, first: int, other: int) -> dict[ir.Value, tuple[int, ...]]:
    """Infer all shapes with numbers for the symbolic dimensions of the inputs.

    Works on a copy without weights. Where the model computes a shape (``Shape``, ``Gather``, ``Mul``,
    ``Concat``, ``Reshape``) that is done too, which onnx's inference alone follows only in part.

    Args:
        model: The model.
        first: Size of symbolic first dimensions, which are batches.
        other: Size of all other symbolic dimensions.

    Returns:
        The shapes that are known in full, by the model's values (subgraphs included).
    """
    proto, kept = strip(model)
    for entry in proto.graph.input:
        for axis, dim in enumerate(entry.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.Clear()
                dim.dim_value = other if axis else first
    # What was declared or inferred for symbolic dimensions would contradict.
    del proto.graph.value_info[:]
    for entry in proto.graph.output:
        if entry.type.HasField("tensor_type"):
            entry.type.tensor_type.ClearField("shape")
    twin = ir.serde.deserialize_model(proto)
    restore(twin, kept)
    fold_shapes(twin)
    known: dict[ir.Value, tuple[int, ...]] = {}
    twins = values_by_name(twin)
    for key, value in values_by_name(model).items():
        other_value = twins.get(key)
        shape = other_value.shape if other_value is not None else None
        if shape is None and value.const_value is not None:
            shape = ir.Shape(value.const_value.shape.numpy())
        if shape is not None and all(isinstance(d, int) and d >= 0 for d in shape):
            known[value] = tuple(int(d) for d in shape if isinstance(d, int))
    return known
