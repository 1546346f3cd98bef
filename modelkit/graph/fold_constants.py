"""Folds what only depends on weights, such as a transposed or reshaped weight, unless the file would grow."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.errors import ModelkitError
from modelkit.graph.shapes import infer_shapes
from modelkit.graph.tensors import constant_of, nbytes, opset_of, packed_bytes, static_shape

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Identity"})
# Deterministic, one value in and one out, known to onnxruntime for all plain types.
_FOLDABLE = _VIEWS | {
    *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos", "Div", "Equal", "Erf"),
    *("Exp", "Expand", "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Less"),
    *("LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow"),
    *("Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign"),
    *(
        "Sin",
        "Size",
        "Slice",
        "Softplus",
        "Split",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
        "Tile",
        "Trilu",
        "Where",
        "Xor",
    ),
}
# Results this small may be larger than what they replace: shapes and axes, and a few numbers.
_SMALL_BYTES = 1024
_FEW_BYTES = 64
_LARGEST_BYTES = 1 << 29


def fold_constants(model: ir.Model) -> list[Decision]:
    """Replace nodes whose inputs are all constants by their result, in place.

    A node is folded when its result takes no more bytes than the inputs that it frees, or when it is
    small (64 bytes; whole numbers 1 KiB, since they are shapes and axes). So ``Expand``, a ``Cast`` to
    a wider type or a transposed copy of a weight that is also used elsewhere stay, and weights that
    are stored compactly (int8 behind ``Cast`` and ``Mul``, or behind ``DequantizeLinear``) stay compact.

    Returns:
        A decision for each node folded, and for each weight of more than 1 KiB that was kept.
    """
    decisions: dict[str, Decision] = {}
    while True:
        infer_shapes(model)
        folded = 0
        for graph in model.graphs():
            for node in list(graph):
                decision = _fold(model, graph, node)
                if decision is not None:
                    decisions[decision.target] = decision
                    folded += decision.action == "folded"
        if not folded:
            return list(decisions.values())


def _fold(model: ir.Model, graph: ir.Graph, node: ir.Node) -> Decision | None:
    if node.domain or node.op_type not in _FOLDABLE or any(v.is_graph_output() for v in node.outputs):
        return None
    present = [value for value in node.inputs if value is not None]
    if any(constant_of(value) is None for value in present) or any(a.is_ref() for a in node.attributes.values()):
        return None
    if not present:
        return None
    size = _result_bytes(node)
    if size is None or size > _LARGEST_BYTES:
        return None
    name = node.name or node.outputs[0].name or node.op_type
    sizes = {id(v): nbytes(t) for v in present if (t := constant_of(v)) is not None}
    freed = sum(sizes[key] for key, v in {id(v): v for v in present}.items() if _only_used_by(v, node))
    integers = all(v.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL) for v in node.outputs)
    if size > max(freed, _SMALL_BYTES if integers else _FEW_BYTES):
        if max(sizes.values()) <= _SMALL_BYTES:
            return None
        return Decision(name, "kept", f"folding this {node.op_type} would make the file larger")
    results = _evaluate(model, node)
    if results is None:
        return None
    for output, result in zip(node.outputs, results, strict=True):
        output_name = output.name
        if not output_name:
            continue
        tensor = ir.Tensor(result, output.dtype, name=output_name)
        value = ir.Value(name=output_name, shape=ir.Shape(result.shape), type=output.type, const_value=tensor)
        output.replace_all_uses_with(value)
        output.name = None
        graph.register_initializer(value)
    graph.remove(node, safe=True)
    _drop_unused(present)
    return Decision(name, "folded", f"the {node.op_type} only depends on weights", {"bytes": size})


def _only_used_by(value: ir.Value, node: ir.Node) -> bool:
    return not value.is_graph_output() and all(user is node for user, _ in value.uses())


def _drop_unused(values: list[ir.Value]) -> None:
    """Remove initializers that a fold left without a consumer, so that the next fold counts right."""
    for value in values:
        if value.is_initializer() and not value.uses() and not value.is_graph_output() and value.graph is not None:
            value.graph.initializers.pop(value.name or "", None)


def _result_bytes(node: ir.Node) -> int | None:
    """Bytes of a node's outputs as inferred; None where shape inference could not tell."""
    total = 0
    for output in node.outputs:
        if not output.name:
            continue
        shape = static_shape(output)
        if shape is None or output.dtype is None or output.dtype == ir.DataType.STRING:
            return None
        total += packed_bytes(output.dtype, int(np.prod(shape, dtype=object)))
    return total


def _evaluate(model: ir.Model, node: ir.Node) -> list[np.ndarray] | None:
    """Compute a node's outputs; None where neither numpy nor onnxruntime can."""
    arrays = [None if v is None else constant_of(v).numpy() for v in node.inputs]  # type: ignore[union-attr]
    if node.op_type in _VIEWS:
        # numpy does these for each type that ONNX has, and without a copy where it can.
        return [_view(node, arrays[0], static_shape(node.outputs[0]))]  # type: ignore[arg-type]
    if any(a is not None and a.dtype.kind not in "fiub" for a in arrays):
        return None
    return _run_alone(model, node, arrays)


def _view(node: ir.Node, array: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
        return np.asarray(np.transpose(array, order), order="C")
    return array if shape is None else array.reshape(shape)


def _run_alone(model: ir.Model, node: ir.Node, arrays: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """Run one node in onnxruntime, with the kernels that would run it later."""
    from modelkit.runtime import make_session

    proto = ir.serde.serialize_node(node)
    inputs = {}
    for value, array in zip(node.inputs, arrays, strict=True):
        if value is not None and array is not None:
            inputs[value.name or ""] = array
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [onnx.ValueInfoProto(name=v.name) for v in node.outputs if v.name],
    )
    opset = onnx.helper.make_opsetid("", opset_of(model))
    alone = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=max(model.ir_version, 4))
    try:
        session = make_session(alone.SerializeToString(), optimize=False)
        found = session.run(None, inputs)
    except (ModelkitError, RuntimeError, ValueError):
        return None
    except Exception:  # onnxruntime's run-time errors have no common base; then the node simply stays
        return None
    results = iter(found)
    return [next(results) if v.name else np.empty(0) for v in node.outputs]
