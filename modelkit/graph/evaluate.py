"""Computes one node whose inputs are all known, with the kernels that would run it later."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from modelkit.errors import ModelkitError
from modelkit.graph.tensors import attribute_int, constant_of, opset_of, static_shape

# numpy does these for each type that ONNX has, and without a copy where it can.
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Identity"})


def evaluate(model: ir.Model, node: ir.Node) -> list[np.ndarray] | None:
    """Compute the outputs of a node from its constant inputs; for Shape and Size their shape is enough.

    Args:
        model: The model that the node is in; its opset counts.
        node: A node of the standard domain, its output shapes inferred.

    Returns:
        One array for each output (empty for one without a name); None where neither numpy nor
        onnxruntime can compute it.
    """
    if node.op_type in ("Shape", "Size"):
        return _shape(node)
    tensors = [None if v is None else constant_of(v) for v in node.inputs]
    if any(v is not None and t is None for v, t in zip(node.inputs, tensors, strict=True)):
        return None
    arrays = [None if t is None else t.numpy() for t in tensors]
    if node.op_type in VIEWS:
        first = arrays[0]
        return None if first is None else [_view(node, first, static_shape(node.outputs[0]))]
    if any(a is not None and a.dtype.kind not in "fiub" for a in arrays):
        return None
    return _run_alone(model, node, arrays)


def _shape(node: ir.Node) -> list[np.ndarray] | None:
    shape = static_shape(node.inputs[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return [np.array(np.prod(shape, dtype=np.int64))]
    start = attribute_int(node, "start", 0)
    end = attribute_int(node, "end", len(shape))
    return [np.array(shape, dtype=np.int64)[start:end]]


def _view(node: ir.Node, array: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
        return np.asarray(np.transpose(array, order), order="C")
    return array if shape is None else array.reshape(shape)


def _run_alone(model: ir.Model, node: ir.Node, arrays: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """Run one node in onnxruntime, its optimisations off."""
    from modelkit.runtime import make_session

    inputs = {
        value.name or "": array
        for value, array in zip(node.inputs, arrays, strict=True)
        if value is not None and array is not None
    }
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node)],
        "alone",
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
        found = iter(session.run(None, inputs))
    except ModelkitError:
        return None
    except Exception:  # onnxruntime's run-time errors have no common base; the node simply stays
        return None
    return [next(found) if v.name else np.empty(0) for v in node.outputs]
