"""Rewrites the constants that hold sizes: targets of reshapes, sizes of splits, bounds of slices."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.layout import Layout
from modelkit.graph.channels.walk import Alive, Walk
from modelkit.graph.edit import add_initializer
from modelkit.graph.tensors import constant_of, static_shape


def shrink_target(walk: Walk, node: ir.Node, index: int) -> None:
    """Let the shape that a node reads follow what is cut from its output.

    Args:
        walk: The pass.
        node: A Reshape, Expand, ConstantOfShape or Resize.
        index: Which of its inputs is that shape.
    """
    layout = walk.layout(node.outputs[0])
    if layout is None or not layout.blocks:
        return

    def edit(alive: Alive) -> None:
        changed = new_sizes(layout, alive)
        if changed:
            replace_numbers(alive, node, index, changed, layout.rank)

    walk.on_cut(node, edit)


def new_sizes(layout: Layout, alive: Alive) -> dict[int, int]:
    """Sizes of the axes of a tensor that a cut changes."""
    sizes = {axis: alive.size(block, axis) for block in layout.blocks for axis in block.axes}
    return {axis: size for axis, size in sizes.items() if size != layout.shape[axis]}


def set_constant(alive: Alive, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Let a node read a new constant: the old one may have other readers."""
    old = node.inputs[index] if index < len(node.inputs) else None
    wish = f"{node.name or node.outputs[0].name}.{index}" if old is None else f"{old.name}.cut"
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, add_initializer(graph_of(node), alive.namer(wish), array))


def graph_of(node: ir.Node) -> ir.Graph:
    """Return the graph that a node is in."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def replace_numbers(alive: Alive, node: ir.Node, index: int, changed: dict[int, int], rank: int) -> None:
    """Change some numbers of a shape that a node reads.

    -1 and 0 in a constant keep their meaning. A shape that is computed is joined anew from its pieces where
    it is a Concat of known pieces; else numbers are put in place of some of its elements.

    Args:
        alive: What stays.
        node: The node.
        index: Which of its inputs is the shape.
        changed: New sizes by axis.
        rank: Length of the shape.
    """
    value, graph = node.inputs[index], graph_of(node)
    assert value is not None
    tensor = constant_of(value)
    if tensor is not None:
        set_constant(alive, node, index, _replaced(tensor.numpy(), changed))
        return
    name = alive.namer(f"{value.name}.cut")
    output = ir.Value(name=name, type=value.type, shape=value.shape)
    pieces = _pieces(value)
    if pieces is not None and all(constant_of(piece) is not None for piece, at in pieces if set(at) & set(changed)):
        fresh = ir.node("Concat", [piece for piece, _ in pieces], {"axis": 0}, outputs=[output], name=name)
        graph.insert_before(node, fresh)
        for position, (piece, at) in enumerate(pieces):
            own = {axis - at.start: size for axis, size in changed.items() if axis in at}
            old = constant_of(piece)
            if own and old is not None:
                set_constant(alive, fresh, position, _replaced(old.numpy(), own))
    else:
        mask = np.array([axis in changed for axis in range(rank)])
        numbers = np.array([changed.get(axis, 0) for axis in range(rank)], dtype=np.int64)
        inputs = [
            add_initializer(graph, alive.namer(f"{value.name}.mask"), mask),
            add_initializer(graph, alive.namer(f"{value.name}.sizes"), numbers),
            value,
        ]
        graph.insert_before(node, ir.node("Where", inputs, outputs=[output], name=name))
    node.replace_input_with(index, output)


def _replaced(numbers: np.ndarray, changed: dict[int, int]) -> np.ndarray:
    numbers = numbers.copy()
    for axis, size in changed.items():
        if numbers[axis] > 0:
            numbers[axis] = size
    return numbers


def _pieces(value: ir.Value) -> list[tuple[ir.Value, range]] | None:
    """The inputs of the Concat that makes a shape, each with the axes it gives; None where there is none."""
    producer = value.producer()
    if producer is None or producer.op_type != "Concat" or producer.domain:
        return None
    found: list[tuple[ir.Value, range]] = []
    start = 0
    for piece in producer.inputs:
        shape = static_shape(piece)
        if piece is None or shape is None or len(shape) != 1:
            return None
        found.append((piece, range(start, start + shape[0])))
        start += shape[0]
    return found
