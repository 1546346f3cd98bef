"""Which initializer of an exported graph holds which numbers of the checkpoint, position by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from modelkit.checkpoint.quiet import quiet
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.graph.tensors import FLOATS, attribute_float, attribute_int, constant_of

# These only move numbers, or pass them on.
_MOVES = frozenset(
    {
        *("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"),
        *("Concat", "Split", "Slice", "Gather", "Constant", "Cast"),
    }
)


@dataclass(frozen=True)
class Link:
    """An initializer whose numbers are those of the checkpoint, in some order.

    Attributes:
        keys: The keys that they come from.
        ids: For each of its elements the position in the keys' numbers, laid out flat one key after the other;
            None where the initializer is its only key as it is.
    """

    keys: tuple[str, ...]
    ids: np.ndarray | None = None

    def positions(self, shape: tuple[int, ...]) -> np.ndarray:
        """``ids``, made where there are none."""
        return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape) if self.ids is None else self.ids


@dataclass(frozen=True)
class Norm:
    """A BatchNormalization behind a layer, by the keys of its parameters.

    Attributes:
        scale: Key of gamma.
        bias: Key of beta.
        mean: Key of the running mean.
        variance: Key of the running variance.
        epsilon: What is added to the variance.
        axis: Axis of the layer's weight that its channels are on.
        groups: Of a ConvTranspose, whose channels are spread over two axes; otherwise 1.
    """

    scale: str
    bias: str
    mean: str
    variance: str
    epsilon: float
    axis: int
    groups: int = 1

    @property
    def keys(self) -> tuple[str, str, str, str]:
        """All four keys."""
        return self.scale, self.bias, self.mean, self.variance


@dataclass
class Links:
    """What connects a graph with a checkpoint.

    Attributes:
        tensors: By the initializer's name.
        norms: By the name of the weight that the BatchNormalization would be folded into.
    """

    tensors: dict[str, Link] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)


def compute_sizes(model: ir.Model) -> None:
    """Let the exporter's own optimiser compute sizes in place, without touching what holds weights.

    Its graphs ask for the shape of a weight, or for one axis of an input, and cut weights accordingly.
    """
    from onnxscript import optimizer

    with quiet():
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=_is_size)


def clean(model: ir.Model) -> None:
    """Tidy an exported graph as ``normalise`` does, in place, but leave each BatchNormalization a node."""
    normalise(model, batchnorm=False)
    _strip(model)


def _is_size(node: ir.Node) -> bool | None:
    """False for a node that moves weights; the optimiser decides about all others."""
    moved = node.op_type in _MOVES and node.outputs[0].dtype in FLOATS
    return False if moved else None


def _strip(model: ir.Model) -> None:
    """Remove what the exporter noted about the machine: stack traces, paths, names of Python classes."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for graph in model.graphs():
        for value in [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
            value.metadata_props.clear()
            value.doc_string = None
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None


def tidy(path: Path, state: Mapping[str, np.ndarray]) -> Links:
    """Clean an exported graph in its file, its initializers named as in the state dict.

    Args:
        path: The ONNX file, as torch exported it.
        state: The module's tensors by key.

    Returns:
        How the graph's initializers and the keys belong together.
    """
    raw = load(path).model
    compute_sizes(raw)
    cleaned = raw.clone()
    clean(cleaned)
    links = link(raw, cleaned, state)
    save(cleaned, path)
    return links


def link(raw: ir.Model, cleaned: ir.Model, state: Mapping[str, np.ndarray]) -> Links:
    """Find out where each initializer's numbers come from, and name it after its key where there is only one.

    The exporter's graph reads parameters under their keys and moves them (a Linear's weight is transposed, the gates
    of a GRU change places); cleaning computes those moves. Here they are computed again on position numbers.

    Args:
        raw: The graph as it was exported.
        cleaned: The same after ``clean``; initializers are renamed in place.
        state: The module's tensors by key.
    """
    found = Links()
    name: str
    for name, value in list(cleaned.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype not in FLOATS:
            continue
        if name in state:
            made: Link | None = Link((name,))
        else:
            made = _trace(raw, name, state)
        if made is None or not _holds(made, tensor.numpy(), state):
            continue
        key = made.keys[0]
        whole = len(made.keys) == 1 and tensor.size == state[key].size
        if whole and key not in cleaned.graph.initializers:
            value.name = name = key
        found.tensors[name] = made
    for node in cleaned.graph:
        if node.op_type == "BatchNormalization" and not node.domain:
            _link_norm(node, state, found)
    return found


def _holds(made: Link, array: np.ndarray, state: Mapping[str, np.ndarray]) -> bool:
    """Whether the link gives exactly the initializer's numbers."""
    return np.array_equal(gather(made, state, array.shape), array, equal_nan=True)


def gather(made: Link, state: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """An initializer's numbers, from the checkpoint's."""
    flat = np.concatenate([state[key].reshape(-1) for key in made.keys])
    return flat.reshape(shape) if made.ids is None else flat[made.ids]


def _trace(raw: ir.Model, name: str, state: Mapping[str, np.ndarray]) -> Link | None:
    """Compute an initializer of the cleaned graph from position numbers, if it is made by moves only."""
    value = next((v for node in raw.graph for v in node.outputs if v.name == name), None)
    nodes: dict[ir.Node, None] = {}
    if value is None or not _ancestors(value, nodes):
        return None
    keys: dict[str, int] = {}
    feeds: dict[str, np.ndarray] = {}
    total = 0
    for node in nodes:
        for read in node.inputs:
            if read is None or read.producer() is not None or read.name in feeds:
                continue
            name_read = read.name or ""
            if name_read in state:
                keys[name_read] = total
                size = state[name_read].size
                feeds[name_read] = np.arange(total, total + size, dtype=np.int64).reshape(state[name_read].shape)
                total += size
            else:
                tensor = constant_of(read)
                if tensor is None or tensor.dtype in FLOATS:
                    return None
                feeds[name_read] = tensor.numpy()
    if not keys:
        return None
    ordered = [node for node in raw.graph if node in nodes]
    ids = _run(ordered, feeds, name, max(raw.opset_imports.get("", 20), 13))
    return None if ids is None else Link(tuple(keys), ids)


def _ancestors(value: ir.Value, nodes: dict[ir.Node, None]) -> bool:
    """Gather the nodes that make a value; False where one of them does more than move numbers."""
    stack = [value]
    while stack:
        node = stack.pop().producer()
        if node is None or node in nodes:
            continue
        if node.domain or node.op_type not in _MOVES:
            return False
        nodes[node] = None
        stack.extend(read for read in node.inputs if read is not None)
    return True


def _run(nodes: list[ir.Node], feeds: dict[str, np.ndarray], name: str, opset: int) -> np.ndarray | None:
    # A Cast between float types moves no number; on position numbers it would lose them.
    protos = []
    for node in nodes:
        proto = ir.serde.serialize_node(node)
        if proto.op_type == "Cast":
            proto.op_type = "Identity"
            del proto.attribute[:]
        protos.append(proto)
    graph = onnx.helper.make_graph(
        protos,
        "moves",
        [onnx.ValueInfoProto(name=each) for each in feeds],
        [onnx.ValueInfoProto(name=name)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        found: Any = ReferenceEvaluator(model).run([name], feeds)
        array = np.asarray(found[0])
    except Exception:  # an operator in a form that the reference does not know: the link is simply not found
        return None
    return array if array.dtype == np.int64 else None


def _link_norm(node: ir.Node, state: Mapping[str, np.ndarray], found: Links) -> None:
    """Remember which layer a BatchNormalization could be folded into."""
    names = [v.name if v is not None else None for v in node.inputs[1:5]]
    layer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if len(names) != 4 or layer is None:
        return
    keys = [found.tensors[n].keys[0] if n in found.tensors else None for n in names]
    if layer.op_type == "Add":
        layer = next((v.producer() for v in layer.inputs if v is not None and v.producer() is not None), None)
    if layer is None or layer.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or None in keys:
        return
    weight = layer.inputs[1].name if layer.inputs[1] is not None else None
    if weight not in found.tensors:
        return
    axis, groups = 0, 1
    if layer.op_type == "ConvTranspose":
        axis, groups = 1, attribute_int(layer, "group", 1)
    elif layer.op_type == "MatMul" or (layer.op_type == "Gemm" and not attribute_int(layer, "transB", 0)):
        axis = 1
    epsilon = float(np.float32(attribute_float(node, "epsilon", 1e-5)))
    assert weight is not None
    scale, bias, mean, variance = map(str, keys)
    found.norms[weight] = Norm(scale, bias, mean, variance, epsilon, axis, groups)
