"""Every tensor of a model in one walk, and the constant behind a value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""Element types that models compute with, as opposed to floats that are only stored."""


@dataclass(frozen=True)
class Slot:
    """A place in a model that holds a tensor: an initializer, or a tensor attribute of a node.

    Attributes:
        owner: The initializer's value, or the node.
        attribute: Name of the attribute; "" for an initializer.
        index: Position in a list attribute; -1 for a single tensor.
        tensor: What it holds now.
    """

    owner: ir.Value | ir.Node
    attribute: str
    index: int
    tensor: ir.TensorProtocol

    @property
    def name(self) -> str:
        """Name of the value or node that holds the tensor, for messages."""
        if isinstance(self.owner, ir.Node):
            return self.owner.name or (self.owner.outputs[0].name if self.owner.outputs else "") or "?"
        return self.owner.name or "?"

    def put(self, tensor: ir.TensorProtocol) -> None:
        """Make the slot hold another tensor of the same shape and type."""
        if isinstance(self.owner, ir.Value):
            self.owner.const_value = tensor
        elif self.index < 0:
            self.owner.attributes[self.attribute] = ir.AttrTensor(self.attribute, tensor)
        else:
            tensors = list(self.owner.attributes[self.attribute].as_tensors())
            tensors[self.index] = tensor
            self.owner.attributes[self.attribute] = ir.AttrTensors(self.attribute, tensors)


def slots(model: ir.Model) -> Iterator[Slot]:
    """Walk over every tensor of a model, subgraphs included, in the order in which it is stored."""
    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            if value.const_value is not None:
                yield Slot(value, "", -1, value.const_value)
        for node in graph:
            for attribute in list(node.attributes.values()):
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    yield Slot(node, attribute.name, -1, attribute.as_tensor())
                elif attribute.type == ir.AttributeType.TENSORS:
                    for index, tensor in enumerate(attribute.as_tensors()):
                        yield Slot(node, attribute.name, index, tensor)


def nbytes(tensor: ir.TensorProtocol) -> int:
    """Bytes that a tensor's data takes in a file; text counts as its UTF-8 bytes."""
    if tensor.dtype == ir.DataType.STRING:
        return sum(len(text) for text in tensor.numpy().reshape(-1).tolist())
    return packed_bytes(tensor.dtype, tensor.size)


def packed_bytes(dtype: ir.DataType, size: int) -> int:
    """Bytes of ``size`` elements of a type, types below 8 bits being packed as ONNX packs them."""
    return -(-size * dtype.bitwidth // 8)


def node_constant(node: ir.Node) -> ir.TensorProtocol | None:
    """Return the tensor that a ``Constant`` node gives, or None where it holds none that is plain."""
    if node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    attribute = next(iter(node.attributes.values()))
    if attribute.is_ref():
        return None
    match attribute.name:
        case "value":
            return attribute.as_tensor()
        case "value_int" | "value_ints":
            return ir.tensor(attribute.value, dtype=ir.DataType.INT64)
        case "value_float" | "value_floats":
            return ir.tensor(attribute.value, dtype=ir.DataType.FLOAT)
    return None


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a value that never changes: an initializer or a ``Constant`` node.

    An initializer that is also an input is a default that the caller may override: no constant.
    """
    if value is None:
        return None
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    producer = value.producer()
    return None if producer is None else node_constant(producer)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return a value's shape where every dimension is a number, else None."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape)
    return tuple(int(d) for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else None


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute of a node, or its default."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type != ir.AttributeType.INT:
        return default
    return int(attribute.value)


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute of a node, or its default."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type != ir.AttributeType.FLOAT:
        return default
    return float(attribute.value)


def opset_of(model: ir.Model) -> int:
    """Return the version of the standard operator set that a model uses (1 where it names none)."""
    return model.opset_imports.get("", 1)


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape; 1 for a scalar."""
    return math.prod(shape)
