"""Walking through the protobuf of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def nodes_in(message: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Walk over the nodes of a graph or function and of the subgraphs below it."""
    for node in message.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_in(attribute.g)
            for graph in attribute.graphs:
                yield from nodes_in(graph)
