"""Makes the sparse tensors of a model dense, since neither onnx_ir nor the algorithms read them."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from modelkit.errors import ModelError
from modelkit.graph.tensors import packed_bytes

# A few bytes can declare a tensor of any size.
MAX_DENSE_BYTES = 1 << 31


def densify(proto: onnx.ModelProto) -> None:
    """Replace sparse initializers and sparse ``Constant`` values by dense ones, in place.

    Raises:
        ModelError: A sparse tensor is invalid, larger than 2 GiB when dense, external, or stands where
            only onnxruntime's own operators could read it.
    """
    _densify_graph(proto.graph)
    for function in proto.functions:
        _densify_nodes(function.node)


def _densify_graph(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    _densify_nodes(graph.node)


def _densify_nodes(nodes: list[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                dense = _dense(attribute.sparse_tensor)
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                attribute.t.CopyFrom(dense)
            elif attribute.type in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
                raise ModelError(
                    f"the node '{node.name}' has a sparse attribute '{attribute.name}'",
                    "modelkit reads sparse tensors only as initializers and Constant nodes",
                )
            if attribute.HasField("g"):
                _densify_graph(attribute.g)
            for graph in attribute.graphs:
                _densify_graph(graph)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Expand one sparse tensor (coordinates either linear or one row for each element)."""
    import onnx_ir as ir

    name = sparse.values.name
    shape = tuple(sparse.dims)
    for part in (sparse.values, sparse.indices):
        if part.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(f"the sparse tensor '{name}' is stored in external data, which modelkit does not read")
    if any(d < 0 for d in shape) or sparse.values.data_type == onnx.TensorProto.STRING:
        raise ModelError(f"the sparse tensor '{name}' of shape {list(shape)} is not valid")
    if packed_bytes(ir.DataType(sparse.values.data_type), math.prod(shape)) > MAX_DENSE_BYTES:
        raise ModelError(f"the sparse tensor '{name}' of shape {list(shape)} is too large to be made dense")
    values = numpy_helper.to_array(sparse.values).reshape(-1)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(shape, dtype=values.dtype)
    try:
        if indices.ndim == 2:
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
        if indices.size and indices.min() < 0:
            raise IndexError
    except (IndexError, ValueError):
        raise ModelError(f"the sparse tensor '{name}' has indices that do not fit its shape {list(shape)}") from None
    tensor = numpy_helper.from_array(dense, name)
    tensor.data_type = sparse.values.data_type
    return tensor
