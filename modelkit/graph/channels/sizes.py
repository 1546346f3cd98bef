"""Which sizes in a graph are the same for every input, and what is computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graph.edit import Namer, add_initializer
from modelkit.graph.fold_constants import fold_constants
from modelkit.graph.normalise import remove_unused
from modelkit.graph.shapes import infer_shapes
from modelkit.graph.static_shapes import shapes_at
from modelkit.graph.tensors import attribute_int, constant_of, static_shape

# Sizes of symbolic dimensions that are no batch, in pairs that are tried until all shapes are known: text
# lengths, then images that survive five strides of two. A size that differs within a pair is dynamic.
_BATCHES = (1, 7)
_SIZES = ((1, 97), (64, 97), (224, 289))


@dataclass(frozen=True)
class Sizes:
    """Shapes of a model's values.

    Attributes:
        shapes: With numbers for symbolic dimensions; a batch is 1.
        static: For each axis, whether it has that size for all inputs.
    """

    shapes: dict[ir.Value, tuple[int, ...]]
    static: dict[ir.Value, tuple[bool, ...]]


def sizes_of(model: ir.Model) -> Sizes:
    """Infer all shapes at two sizes of the symbolic dimensions and compare them."""
    best: tuple[dict[ir.Value, tuple[int, ...]], dict[ir.Value, tuple[int, ...]]] | None = None
    for small, large in _SIZES if _has_dynamic_size(model) else _SIZES[:1]:
        pair = shapes_at(model, _BATCHES[0], small), shapes_at(model, _BATCHES[1], large)
        if best is None or len(pair[0]) + len(pair[1]) > len(best[0]) + len(best[1]):
            best = pair
    assert best is not None
    first, second = best
    static: dict[ir.Value, tuple[bool, ...]] = {}
    for value, shape in first.items():
        other = second.get(value)
        known = static_shape(value)
        if known == shape:
            static[value] = (True,) * len(shape)
        elif other is not None and len(other) == len(shape):
            static[value] = tuple(a == b for a, b in zip(shape, other, strict=True))
        else:
            declared = tuple(value.shape) if value.shape is not None and len(value.shape) == len(shape) else shape
            static[value] = tuple(
                isinstance(d, int) and a == d and (value.shape is not None or a != 1)
                for a, d in zip(shape, declared, strict=True)
            )
            if value.shape is None:
                static[value] = (False,) * len(shape)
    return Sizes(first, static)


def pin_sizes(model: ir.Model) -> Sizes:
    """Replace what the graph reads off shapes that never change by constants, in place.

    What is computed from a number of channels (the width of a head, the scale of an attention) would otherwise
    change when channels are cut. What the model computes stays the same.

    Returns:
        The sizes of the model's values.
    """
    sizes = sizes_of(model)
    namer = Namer(model)
    changed = False
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == "Shape" and not node.domain:
                changed |= _pin(graph, node, sizes, namer)
    if not changed:
        return sizes
    fold_constants(model)
    remove_unused(model)
    infer_shapes(model)
    return sizes_of(model)


def picked_axes(node: ir.Node, rank: int) -> np.ndarray:
    """Axes that a ``Shape`` node reads, in order."""
    start, end = attribute_int(node, "start", 0), attribute_int(node, "end", rank)
    return np.arange(rank)[start:end]


def picked_by(user: ir.Node, axes: np.ndarray) -> np.ndarray | None:
    """Which of a shape's axes a ``Gather`` or ``Slice`` with constant positions takes; None for other nodes."""
    if user.domain:
        return None
    constants = [constant_of(v) for v in user.inputs[1:]]
    if any(v is not None and c is None for v, c in zip(user.inputs[1:], constants, strict=True)):
        return None
    arrays = [None if c is None else c.numpy() for c in constants]
    try:
        if user.op_type == "Gather" and arrays[0] is not None:
            return np.asarray(axes[arrays[0]])
        if user.op_type == "Slice" and len(arrays) >= 2:
            starts, ends = arrays[0], arrays[1]
            step = 1 if len(arrays) < 4 or arrays[3] is None else int(arrays[3].reshape(-1)[0])
            assert starts is not None
            assert ends is not None
            return axes[int(starts.reshape(-1)[0]) : int(ends.reshape(-1)[0]) : step]
    except IndexError:
        return None
    return None


def _pin(graph: ir.Graph, node: ir.Node, sizes: Sizes, namer: Namer) -> bool:
    source, output = node.inputs[0], node.outputs[0]
    if source is None or source not in sizes.shapes or output.is_graph_output():
        return False
    shape, static = sizes.shapes[source], np.array(sizes.static[source], dtype=bool)
    axes = picked_axes(node, len(shape))
    changed = False
    targets: list[tuple[ir.Value, np.ndarray]] = []
    if static[axes].all():
        targets.append((output, axes))
    for user, index in output.uses():
        picked = picked_by(user, axes) if index == 0 and user.graph is graph else None
        if picked is not None and static[picked].all() and not user.outputs[0].is_graph_output():
            targets.append((user.outputs[0], picked))
    for value, picked in targets:
        if value.uses():
            number = np.array(shape, dtype=np.int64)[picked]
            value.replace_all_uses_with(add_initializer(graph, namer(f"{value.name}.fixed"), np.asarray(number)))
            changed = True
    return changed


def _has_dynamic_size(model: ir.Model) -> bool:
    return any(
        not isinstance(dim, int)
        for value in model.graph.inputs
        if value.shape is not None
        for dim in tuple(value.shape)[1:]
    )
