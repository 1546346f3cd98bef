"""Convolutions and matrix products: their weights make channels and use them up."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.layout import Block, Layout
from modelkit.graph.channels.rules_elementwise import describe
from modelkit.graph.channels.walk import Alive, Operand, Walk
from modelkit.graph.tensors import attribute_int


def conv(walk: Walk, node: ir.Node) -> None:
    """Conv: W is [M, C / group, k...], the output [N, M, ...]."""
    seen = _windowed(walk, node)
    if seen is None:
        return
    data, weight, x, w, sections, inside = seen
    made = walk.axis_ids(w, 0, describe(node))
    used = walk.axis_ids(w, 1, describe(node))
    walk.mark(made, "produces", node)
    if sections == 1:
        walk.mark(used, "consumes", node)
        _use(walk, node, data, weight, inside, used)
    elif w.shape[1] == 1 and sections == len(inside):
        _depthwise(walk, node, inside, made.reshape(sections, -1))
    else:
        _grouped(walk, node, weight, inside, sections)
    _bias(walk, node, made)
    _give(walk, node, x, made)
    walk.vanishes[node.outputs[0]] = True


def conv_transpose(walk: Walk, node: ir.Node) -> None:
    """ConvTranspose: W is [C, M / group, k...], the output [N, M, ...]."""
    seen = _windowed(walk, node)
    if seen is None:
        return
    data, weight, x, w, sections, inside = seen
    used = walk.axis_ids(w, 0, describe(node))
    if sections == 1:
        made = walk.axis_ids(w, 1, describe(node))
        walk.mark(made, "produces", node)
        walk.mark(used, "consumes", node)
        _use(walk, node, data, weight, inside, used)
    elif w.shape[1] == 1 and sections == len(inside):
        walk.mark(used, "produces", node)
        made = used
        _depthwise(walk, node, inside, made.reshape(sections, 1))
    else:
        refuse(walk, node, f"{describe(node)} is a grouped transposed convolution")
        return
    _bias(walk, node, made)
    _give(walk, node, x, made)
    walk.vanishes[node.outputs[0]] = True


def _windowed(walk: Walk, node: ir.Node) -> tuple[ir.Value, ir.Value, Layout, Layout, int, np.ndarray] | None:
    """A convolution's input and weight, their layouts, its groups and the ids of its input channels."""
    data, weight = node.inputs[:2]
    x, w = walk.layout(data), walk.layout(weight)
    if data is None or weight is None or x is None or w is None:
        refuse(walk, node, f"the shapes around {describe(node)} are not known")
        return None
    return data, weight, x, w, attribute_int(node, "group", 1), _channels(walk, node, x)


def matmul(walk: Walk, node: ir.Node) -> None:
    """MatMul: the last axis of the left side meets the last but one of the right side."""
    left, right = (walk.layout(value) for value in node.inputs[:2])
    if left is None or right is None or not left.rank or not right.rank or walk.plain(node.outputs[0]) is None:
        refuse(walk, node, f"the shapes around {describe(node)} are not known")
        return
    # The shared space is [batch..., row, column, summed]; a vector has no row or no column.
    batch = max(left.rank, right.rank, 2) - 2
    row, column, summed = batch, batch + 1, batch + 2
    a = _batched(left.rank, batch, (row, summed) if left.rank > 1 else (summed,))
    b = _batched(right.rank, batch, (summed, column) if right.rank > 1 else (summed,))
    _mark(walk, node, 0, left, {left.rank - 1: "consumes", left.rank - 2: "produces"})
    _mark(walk, node, 1, right, {right.rank - 2 if right.rank > 1 else 0: "consumes", right.rank - 1: "produces"})
    found = _contract(walk, node, [Operand(left, a), Operand(right, b)], summed)
    present = [axis for axis in range(batch + 2) if axis in (*a, *b)]
    walk.put(node.outputs[0], [_renumber(block, present) for block in found], describe(node))


def gemm(walk: Walk, node: ir.Node) -> None:
    """Gemm: alpha * A' B' + beta * C on matrices, each transposed or not."""
    left, right, output = walk.layout(node.inputs[0]), walk.layout(node.inputs[1]), node.outputs[0]
    if left is None or right is None or walk.plain(output) is None:
        refuse(walk, node, f"the shapes around {describe(node)} are not known")
        return
    row, column, summed = 0, 1, 2
    a = (summed, row) if attribute_int(node, "transA", 0) else (row, summed)
    b = (column, summed) if attribute_int(node, "transB", 0) else (summed, column)
    _mark(walk, node, 0, left, {a.index(summed): "consumes", a.index(row): "produces"})
    _mark(walk, node, 1, right, {b.index(summed): "consumes", b.index(column): "produces"})
    blocks = _contract(walk, node, [Operand(left, a), Operand(right, b)], summed)
    plain = walk.plain(output)
    assert plain is not None
    zero = walk.vanishes[output]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        added = walk.layout(bias)
        if added is None:
            refuse(walk, node, f"the shapes around {describe(node)} are not known")
            return
        operands = [
            Operand(plain.with_blocks(blocks), (0, 1)),
            Operand(added, tuple(range(2 - added.rank, 2))),
        ]
        blocks = walk.merge(operands, _combines(node))
        zero = zero and walk.vanishes.get(bias, False)
    walk.put(output, blocks, describe(node))
    walk.vanishes[output] = zero


def refuse(walk: Walk, node: ir.Node, reason: str) -> None:
    """Follow a node no further: what it reads stays, what it gives carries no channels."""
    walk.freeze_inputs(node, reason)
    for output in node.outputs:
        walk.layouts[output] = walk.plain(output)


def _combines(node: ir.Node) -> str:
    return f"{describe(node)} combines it with something that cannot shrink"


def _channels(walk: Walk, node: ir.Node, x: Layout) -> np.ndarray:
    """Ids along the channel axis; what lies along the axes that a kernel moves over stays."""
    for block in x.blocks:
        if block.axes not in ((0,), (1,)):
            walk.relations.freeze(block.ids, f"{describe(node)} moves along it")
    return walk.axis_ids(x, 1, f"{describe(node)} moves along it")


def _use(
    walk: Walk, node: ir.Node, data: ir.Value | None, weight: ir.Value, inside: np.ndarray, used: np.ndarray
) -> None:
    walk.relations.same(inside, used, f"it meets a fixed number of channels in {describe(node)}")
    if not walk.is_constant(weight) and not (data is not None and walk.vanishes.get(data, False)):
        walk.relations.change(inside, f"the weights of {describe(node)} are computed")


def _depthwise(walk: Walk, node: ir.Node, inside: np.ndarray, made: np.ndarray) -> None:
    """Each input channel makes its own output channels: they are the same channel."""
    walk.relations.same(inside[:, None], made, f"it meets a fixed number of channels in {describe(node)}")

    def edit(alive: Alive) -> None:
        node.attributes["group"] = ir.AttrInt64("group", alive.count(inside))

    walk.on_cut(node, edit)


def _grouped(walk: Walk, node: ir.Node, weight: ir.Value, inside: np.ndarray, sections: int) -> None:
    """Each section keeps as many input channels as the others, and as many output channels."""
    reason = f"the {sections}-fold grouped {describe(node)}"
    layout = walk.layout(weight)
    assert layout is not None
    users = [(user.op_type, attribute_int(user, "group", 1), index) for user, index in weight.uses()]
    if weight not in walk.initializers or any(use != ("Conv", sections, 1) for use in users):
        walk.relations.freeze(inside, f"{reason} shares its weight")
        walk.freeze_value(weight, f"{reason} shares its weight")
        return
    made, used = walk.initializers[weight][:2]
    walk.relations.freeze(used, reason)
    if weight not in walk.sectioned:
        walk.sectioned[weight] = (walk.relations.fresh(len(inside)), sections)
        walk.relations.partition(made.reshape(sections, -1), reason)
    ids = walk.sectioned[weight][0]
    walk.kinds.append((ids, "consumes", node))
    walk.relations.same(inside, ids, f"it meets a fixed number of channels in {describe(node)}")
    walk.relations.partition(inside.reshape(sections, -1), reason)


def _bias(walk: Walk, node: ir.Node, made: np.ndarray) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return
    layout = walk.layout(bias)
    if layout is None:
        walk.relations.freeze(made, f"the shape of the bias of {describe(node)} is not known")
    elif layout.shape[0] == len(made) and len(made) > 1:
        walk.relations.same(walk.axis_ids(layout, 0, describe(node)), made, _combines(node))


def _give(walk: Walk, node: ir.Node, x: Layout, made: np.ndarray) -> None:
    blocks = [block for block in x.blocks if block.axes == (0,)]
    if len(made) > 1:
        blocks.append(Block((1,), made))
    walk.put(node.outputs[0], blocks, describe(node))


def _batched(rank: int, batch: int, last: tuple[int, ...]) -> tuple[int, ...]:
    """Shared numbers of a matrix operand's axes."""
    own = rank - len(last)
    return (*range(batch - own, batch), *last)


def _mark(walk: Walk, node: ir.Node, index: int, layout: Layout, kinds: dict[int, str]) -> None:
    """State what the axes of a constant operand are for."""
    if not walk.is_constant(node.inputs[index]):
        return
    for axis, kind in kinds.items():
        block = layout.block_at(axis) if axis >= 0 else None
        if block is not None:
            walk.mark(block.ids.reshape(-1), kind, node)  # type: ignore[arg-type]


def _contract(walk: Walk, node: ir.Node, operands: list[Operand], summed: int) -> list[Block]:
    """Sum over one axis, and say whether removed channels are zero in the result."""
    left, right = node.inputs[:2]
    zeros = [value is not None and walk.vanishes.get(value, False) for value in (left, right)]
    weighted = walk.is_constant(left) or walk.is_constant(right)
    walk.vanishes[node.outputs[0]] = True if weighted else any(zeros)
    return walk.contract(operands, {summed}, _combines(node), exact=weighted or any(zeros))


def _renumber(block: Block, present: list[int]) -> Block:
    return Block(tuple(present.index(axis) for axis in block.axes), block.ids)
