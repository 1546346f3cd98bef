"""What a model is apart from its numbers: two models with the same structure run in the same kernels."""

from __future__ import annotations

import hashlib

import onnx_ir as ir

from modelkit.graph.tensors import opset_of

# Subgraphs are gone through one by one, and tensors are numbers.
_HOLD_MORE = (
    ir.AttributeType.GRAPH,
    ir.AttributeType.GRAPHS,
    ir.AttributeType.TENSOR,
    ir.AttributeType.TENSORS,
    ir.AttributeType.SPARSE_TENSOR,
)


def structure_key(model: ir.Model) -> str:
    """Hash a model's operators, how they hang together, and the types and shapes of its tensors (SHA-256, hex)."""
    digest = hashlib.sha256(f"{opset_of(model)}".encode())
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.outputs):
            digest.update(f"{value.name}\0{value.type}\0{value.shape}\n".encode())
        for name, value in graph.initializers.items():
            digest.update(f"{name}\0{value.dtype}\0{value.shape}\n".encode())
        for node in graph:
            wires = [value.name if value is not None else None for value in (*node.inputs, *node.outputs)]
            plain = {
                name: attribute.value
                for name, attribute in sorted(node.attributes.items())
                if not attribute.is_ref() and attribute.type not in _HOLD_MORE
            }
            digest.update(f"{node.domain}\0{node.op_type}\0{wires}\0{plain}\n".encode())
    return digest.hexdigest()
