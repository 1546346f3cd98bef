"""What a model is: inputs, outputs, operators, parameters, multiply-accumulates and bytes by layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.layers import Role, role_of, weight_uses
from modelkit.graph.macs import Shapes, UnknownShape, node_macs
from modelkit.graph.quantized import QuantizedState, blockers, quantized_state
from modelkit.graph.static_shapes import shapes_at_one
from modelkit.graph.tensors import constant_of, nbytes, opset_of

# Operators between a weight as it is stored and the layer that multiplies by it.
_DECODERS = {
    "DequantizeLinear",
    "Cast",
    "Mul",
    "Sub",
    "Transpose",
    "Reshape",
    "Identity",
    "Squeeze",
    "Unsqueeze",
}


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of the model.

    Attributes:
        name: Its name.
        dtype: ONNX type in lower case ("float", "int64"), or the whole type for sequences.
        shape: Numbers, names of symbolic dimensions, "?" where unnamed; None where no rank is declared.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class LayerFacts:
    """A node with weights, or one that multiplies.

    Attributes:
        name: Of the node, or of its first output.
        op: Operator type, with its domain where it is not the standard one.
        input_shapes: Shapes of the inputs that are no constants, symbolic dimensions as 1; None if unknown.
        output_shape: Shape of the first output, likewise.
        weights: Names of its constants, biases included.
        weight_shapes: Shapes of these as they are stored.
        parameters: Number of its parameters. A shared weight counts in each layer that uses it.
        bytes: What they take in the file.
        macs: Multiply-accumulates with symbolic dimensions as 1; None where shapes are unknown.
        weight_dtype: Stored type of its largest constant ("" where it has none).
    """

    name: str
    op: str
    input_shapes: tuple[tuple[int, ...] | None, ...]
    output_shape: tuple[int, ...] | None
    weights: tuple[str, ...]
    weight_shapes: tuple[tuple[int, ...], ...]
    parameters: int
    bytes: int
    macs: int | None
    weight_dtype: str


@dataclass(frozen=True)
class ModelFacts:
    """What there is to say about a model without running it.

    Attributes:
        inputs: Inputs without those that have a default.
        outputs: Outputs.
        opset: Version of the standard operator set.
        domains: Versions of the other operator sets that it uses, sorted by name.
        ir_version: Version of the file format.
        producer: Name and version of what wrote it; "" where it does not say.
        op_counts: Number of nodes of each operator, most frequent first, subgraphs included.
        parameters: Number of weights and biases, shared ones once; shapes, scales and zero points do not
            count, means and variances of BatchNormalization do.
        parameter_bytes: What these take in the file.
        macs: Multiply-accumulates of one run with each symbolic dimension 1, so of one sample where the
            batch is symbolic. Of an ``If`` the dearer branch counts, of a ``Loop`` one turn. None where
            the shapes of some layers are unknown.
        macs_unknown: Those layers, and the loops.
        layers: Nodes with parameters or multiply-accumulates, in order.
        quantized: What is quantized already.
        blockers: What would stop or limit quantization.
    """

    inputs: list[TensorFacts]
    outputs: list[TensorFacts]
    opset: int
    domains: dict[str, int]
    ir_version: int
    producer: str
    op_counts: dict[str, int]
    parameters: int
    parameter_bytes: int
    macs: int | None
    macs_unknown: list[str]
    layers: list[LayerFacts]
    quantized: QuantizedState
    blockers: list[Decision] = field(default_factory=list)


def describe(model: ir.Model) -> ModelFacts:
    """Gather the facts about a model; weights are not read and the model is not changed."""
    shapes = Shapes(shapes_at_one(model))
    counter = _MacCounter(shapes)
    macs = counter.graph(model.graph)
    layers = []
    stored: dict[ir.Value, tuple[int, int]] = {}
    ops: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        op = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        ops[op] += 1
        parameters = _parameters(node)
        stored.update({key: (tensor.size, nbytes(tensor)) for key, tensor in parameters.items()})
        count = counter.counted.get(node, 0)
        if parameters or count != 0:
            layers.append(_layer(node, op, parameters, count, shapes))
    state = quantized_state(model)
    domains = {name: version for name, version in sorted(model.opset_imports.items()) if name}
    return ModelFacts(
        inputs=[_tensor(value) for value in model.graph.inputs if not value.is_initializer()],
        outputs=[_tensor(value) for value in model.graph.outputs],
        opset=opset_of(model),
        domains=domains,
        ir_version=model.ir_version,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        op_counts=dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(size for size, _ in stored.values()),
        parameter_bytes=sum(size for _, size in stored.values()),
        macs=macs if not counter.unknown else None,
        macs_unknown=counter.unknown,
        layers=layers,
        quantized=state,
        blockers=blockers(model, weight_uses(model), state),
    )


def layer_sizes(facts: ModelFacts) -> list[dict[str, Any]]:
    """What a report says of each layer: ``name``, ``op``, ``weights``, ``shape``, ``dtype``, ``bytes``, ...

    The shape is that of the largest weight; also ``parameters`` and ``macs``.
    """
    return [
        {
            "name": layer.name,
            "op": layer.op,
            "weights": list(layer.weights),
            "shape": list(max(layer.weight_shapes, key=math.prod, default=())),
            "dtype": layer.weight_dtype,
            "bytes": layer.bytes,
            "parameters": layer.parameters,
            "macs": layer.macs,
        }
        for layer in facts.layers
    ]


def _tensor(value: ir.Value) -> TensorFacts:
    dtype = value.dtype.name.lower() if isinstance(value.type, ir.TensorType) and value.dtype else str(value.type)
    if value.shape is None:
        return TensorFacts(value.name or "?", dtype, None)
    shape = tuple(d if isinstance(d, int) else (d.value or "?") for d in value.shape)
    return TensorFacts(value.name or "?", dtype, shape)


def _layer(
    node: ir.Node, op: str, parameters: Mapping[ir.Value, ir.TensorProtocol], macs: int | None, shapes: Shapes
) -> LayerFacts:
    data = [v for v in node.inputs if v is not None and _stored_weight(v) is None]
    tensors = list(parameters.values())
    largest = max(tensors, key=lambda t: t.size, default=None)
    return LayerFacts(
        name=node.name or node.outputs[0].name or node.op_type,
        op=op,
        input_shapes=tuple(_shape(v, shapes) for v in data),
        output_shape=_shape(node.outputs[0], shapes),
        weights=tuple(value.name or "" for value in parameters),
        weight_shapes=tuple(tuple(int(d) for d in t.shape.numpy()) for t in tensors),
        parameters=sum(t.size for t in tensors),
        bytes=sum(nbytes(t) for t in tensors),
        macs=macs,
        weight_dtype=largest.dtype.name.lower() if largest is not None else "",
    )


def _shape(value: ir.Value, shapes: Shapes) -> tuple[int, ...] | None:
    try:
        return shapes.of(value)
    except UnknownShape:
        return None


def _parameters(node: ir.Node) -> dict[ir.Value, ir.TensorProtocol]:
    """The constants of a node that are parameters, by the value that stores them."""
    if node.op_type in _DECODERS and _feeds_only_layers(node):
        return {}  # it belongs to the layer behind it
    found: dict[ir.Value, ir.TensorProtocol] = {}
    for index, value in enumerate(node.inputs):
        source = _stored_weight(value)
        if source is None or value is None:
            continue
        tensor = constant_of(source)
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            continue
        stored_narrow = tensor.dtype.is_floating_point() or tensor.dtype.bitwidth <= 8
        if source is not value:
            if stored_narrow and tensor.size > 1:
                found[source] = tensor
            continue
        role, _ = role_of(source, node, index)
        if role == Role.QUANTIZATION or (role == Role.OTHER and not tensor.dtype.is_floating_point()):
            continue
        if role == Role.OTHER and tensor.size < 2:
            continue  # a number in a formula
        found[source] = tensor
    return found


def _stored_weight(value: ir.Value | None) -> ir.Value | None:
    """Follow a value back through what decodes a weight to the constant that stores it."""
    while value is not None:
        if constant_of(value) is not None:
            return value
        producer = value.producer()
        if producer is None or producer.domain or producer.op_type not in _DECODERS:
            return None
        if producer.op_type in ("Mul", "Sub") and constant_of(producer.inputs[1]) is None:
            return None
        value = producer.inputs[0]
    return None


def _feeds_only_layers(node: ir.Node) -> bool:
    """Whether a decoder's result is a decoded weight that other nodes consume."""
    return _stored_weight(node.outputs[0]) is not None and bool(node.outputs[0].uses())


class _MacCounter:
    """Counts multiply-accumulates of graphs and keeps the count of each node."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self.counted: dict[ir.Node, int | None] = {}
        self.unknown: list[str] = []

    def graph(self, graph: ir.Graph) -> int:
        """Count one run of a graph; nodes that cannot be counted are noted and left out."""
        return sum(self._node(node) for node in graph)

    def _node(self, node: ir.Node) -> int:
        branches = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
        if branches:
            counts = [self.graph(branch) for branch in branches]
            if node.op_type in ("Loop", "Scan") and any(counts):
                self.unknown.append(node.name or node.op_type)
            return max(counts)
        try:
            count = node_macs(node, self._shapes)
        except (UnknownShape, IndexError, ValueError):
            self.counted[node] = None
            self.unknown.append(node.name or node.outputs[0].name or node.op_type)
            return 0
        self.counted[node] = count
        return count
