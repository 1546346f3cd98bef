"""Ops that take pieces out of a tensor: Split, Slice, Gather, and the shape that ``Shape`` reads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.layout import Block, Layout
from modelkit.graph.channels.rules_elementwise import describe
from modelkit.graph.channels.rules_products import refuse
from modelkit.graph.channels.sizes import picked_axes, picked_by
from modelkit.graph.channels.targets import set_constant
from modelkit.graph.channels.walk import Alive, Walk
from modelkit.graph.tensors import attribute_int, constant_of, opset_of


def split(walk: Walk, node: ir.Node) -> None:
    """Split: each output gets its part of the ids, and its new size on a cut."""
    source, reason = node.inputs[0], describe(node)
    before = walk.layout(source)
    afters = [walk.plain(output) for output in node.outputs]
    if before is None or source is None or any(after is None for after in afters):
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    axis = attribute_int(node, "axis", 0) % before.rank
    block = before.block_at(axis)
    others = [b for b in before.blocks if b is not block]
    if block is not None and not before.static[axis]:
        walk.relations.freeze(block.ids, f"{reason} divides an axis of unknown size")
        block = None
    sizes = [after.shape[axis] for after in afters if after is not None]
    parts: list[Block | None] = [None] * len(sizes)
    if block is not None:
        ids = np.split(block.ids, np.cumsum(sizes)[:-1], axis=block.axes.index(axis))
        parts = [Block(block.axes, part) for part in ids]
        _pieces(walk, block, ids, reason)
    for output, part in zip(node.outputs, parts, strict=True):
        walk.put(output, [*others, part] if part is not None else others, reason)
        walk.vanishes[output] = walk.vanishes.get(source, False)

    def edit(alive: Alive) -> None:
        new = [alive.size(part, axis) for part in parts if part is not None]
        if new == sizes:
            return
        if opset_of(walk.model) < 13:
            node.attributes["split"] = ir.AttrInt64s("split", new)
        else:
            node.attributes.pop("num_outputs", None)
            set_constant(alive, node, 1, np.array(new, dtype=np.int64))

    if block is not None:
        walk.on_cut(node, edit)


def slice_(walk: Walk, node: ir.Node) -> None:
    """Slice: contiguous pieces of channels; other steps over channels are not followed."""
    source, output, reason = node.inputs[0], node.outputs[0], describe(node)
    before = walk.layout(source)
    bounds = _bounds(walk, node, before) if before is not None else None
    if before is None or source is None or walk.plain(output) is None:
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    if bounds is None:
        refuse(walk, node, f"the bounds of {reason} are computed")
        return
    walk.vanishes[output] = walk.vanishes.get(source, False)
    blocks: list[Block] = []
    moving: dict[int, tuple[Block, int, int]] = {}
    for block in before.blocks:
        ids, fine = block.ids, True
        for axis in block.axes:
            if axis not in bounds:
                continue
            start, stop, step = bounds[axis]
            fine &= step == 1 and before.static[axis]
            # What lies before has to be as long in each row, or the piece would begin at several places.
            _pieces(walk, block, [ids.take(range(start), axis=block.axes.index(axis))] if start else [], reason)
            ids = ids.take(range(start, stop, step), axis=block.axes.index(axis))
            moving[axis] = (block, start, stop)
        if not fine or not ids.size:
            walk.relations.freeze(block.ids, f"{reason} steps over it")
            continue
        if ids.shape != block.ids.shape:
            _pieces(walk, block, [ids], reason)
        blocks.append(Block(block.axes, ids))
    walk.put(output, blocks, reason)

    def edit(alive: Alive) -> None:
        new = {}
        for axis, (block, start, stop) in moving.items():
            position = block.axes.index(axis)
            low = _size(alive, block, axis, range(start), position)
            new[axis] = low, low + _size(alive, block, axis, range(start, stop), position)
        if any(new[axis] != moving[axis][1:] for axis in new):
            _set_bounds(walk, alive, node, new, before.rank)

    if moving:
        walk.on_cut(node, edit)


def gather(walk: Walk, node: ir.Node) -> None:
    """Gather: an embedding, positions along another axis, or channels in a fixed order."""
    source, indices, output, reason = node.inputs[0], node.inputs[1], node.outputs[0], describe(node)
    before, after, chosen = walk.layout(source), walk.plain(output), walk.layout(indices)
    if before is None or after is None or source is None or indices is None:
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    axis = attribute_int(node, "axis", 0) % before.rank
    extra = after.rank - before.rank
    places = {a: a if a < axis else a + extra for a in range(before.rank) if a != axis}
    block = before.block_at(axis)
    walk.vanishes[output] = walk.vanishes.get(source, False)
    if chosen is not None and not walk.is_constant(indices):
        walk.relations.freeze(chosen.ids(), f"{reason} reads positions from it")
    blocks = [Block(tuple(places[a] for a in b.axes), b.ids) for b in before.blocks if b is not block]
    if walk.is_constant(source) and not walk.is_constant(indices):
        for own in blocks:
            walk.mark(own.ids.reshape(-1), "produces", node)
    if block is not None:
        tensor = constant_of(indices)
        positions = None if tensor is None else tensor.numpy().astype(np.int64)
        if positions is None or positions.ndim > 1 or not before.static[axis]:
            walk.relations.freeze(block.ids, f"{reason} chooses from it")
        else:
            picked = _gathered(walk, node, block, axis, positions, places)
            if picked is not None:
                blocks.append(picked)
    walk.put(output, blocks, reason)


def _gathered(
    walk: Walk, node: ir.Node, block: Block, axis: int, positions: np.ndarray, places: dict[int, int]
) -> Block | None:
    """Ids that fixed positions along a block's axis have; the positions move on a cut."""
    place = block.axes.index(axis)
    size = block.ids.shape[place]
    positions = positions % size
    ids = block.ids.take(positions, axis=place)
    lines = np.moveaxis(block.ids, place, 0).reshape(size, -1)
    if len(block.axes) > 1:
        walk.relations.lines(block.ids, describe(node))

    def edit(alive: Alive) -> None:
        stays = np.asarray(alive(lines).any(axis=1))
        rank = np.cumsum(stays) - 1
        if stays.all():
            return
        new = rank[positions] if positions.ndim == 0 else rank[positions[stays[positions]]]
        set_constant(alive, node, 1, np.asarray(new, dtype=np.int64))

    walk.on_cut(node, edit)
    if positions.ndim:
        return Block(tuple(axis if a == axis else places[a] for a in block.axes), ids)
    rest = tuple(places[a] for a in block.axes if a != axis)
    if rest:
        return Block(rest, ids)
    walk.relations.freeze(ids.reshape(-1), f"{describe(node)} takes a single channel")
    return None


def shape_read(walk: Walk, node: ir.Node) -> None:
    """Shape: sizes that a cut changes must not be computed with."""
    layout = walk.layout(node.inputs[0])
    output = node.outputs[0]
    walk.layouts[output] = walk.plain(output)
    if layout is None or not layout.blocks:
        return
    axes = picked_axes(node, layout.rank)
    picks = [picked_by(user, axes) if index == 0 else None for user, index in output.uses()]
    if output.is_graph_output() or any(pick is None for pick in picks):
        read = {int(a) for a in axes}
    else:
        read = {int(a) for pick in picks if pick is not None for a in np.atleast_1d(pick)}
    for block in layout.blocks:
        if read & set(block.axes):
            walk.relations.freeze(block.ids, f"the graph computes with its size, read by {describe(node)}")


def _pieces(walk: Walk, block: Block, parts: list[np.ndarray], reason: str) -> None:
    """State that parts of ids over several axes are taken from rows that have to be full."""
    if len(block.axes) > 1:
        for part in parts:
            walk.relations.piece(part, block.ids, reason)


def _size(alive: Alive, block: Block, axis: int, picked: range, position: int) -> int:
    ids = block.ids.take(picked, axis=position)
    return alive.size(Block(block.axes, ids), axis) if ids.size else 0


def _bounds(walk: Walk, node: ir.Node, before: Layout | None) -> dict[int, tuple[int, int, int]] | None:
    """Start, stop and step of each sliced axis; None where they are computed."""
    assert before is not None
    if opset_of(walk.model) < 10:
        starts = list(node.attributes["starts"].as_ints())
        ends = list(node.attributes["ends"].as_ints())
        axes = list(node.attributes["axes"].as_ints()) if "axes" in node.attributes else list(range(len(starts)))
        steps = [1] * len(starts)
    else:
        given = []
        for value in [*node.inputs[1:], None, None][:4]:
            tensor = constant_of(value)
            if value is not None and tensor is None:
                return _computed(before, node)
            given.append(None if tensor is None else [int(n) for n in tensor.numpy().reshape(-1)])
        assert given[0] is not None
        assert given[1] is not None
        starts, ends = given[0], given[1]
        axes = given[2] if given[2] is not None else list(range(len(starts)))
        steps = given[3] if given[3] is not None else [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        low, high, stride = slice(start, end, step).indices(before.shape[axis])
        found[axis % before.rank] = (low, high, stride)
    return found


def _computed(before: Layout, node: ir.Node) -> dict[int, tuple[int, int, int]] | None:
    """Bounds that are computed matter only for the axes that are named, if those are named."""
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None:
        return None
    named = {int(a) % before.rank for a in axes.numpy().reshape(-1)}
    return None if any(named & set(block.axes) for block in before.blocks) else {}


def _set_bounds(walk: Walk, alive: Alive, node: ir.Node, new: dict[int, tuple[int, int]], rank: int) -> None:
    old = opset_of(walk.model) < 10
    given = (
        [node.attributes[k].as_ints() if k in node.attributes else None for k in ("starts", "ends", "axes")]
        if old
        else [None if (t := constant_of(v)) is None else t.numpy() for v in [*node.inputs[1:], None][:3]]
    )
    assert given[0] is not None
    assert given[1] is not None
    starts, ends = np.array(given[0], dtype=np.int64), np.array(given[1], dtype=np.int64)
    axes = [int(a) % rank for a in (given[2] if given[2] is not None else range(len(starts)))]
    for position, axis in enumerate(axes):
        if axis in new:
            starts[position], ends[position] = new[axis]
    if old:
        node.attributes["starts"] = ir.AttrInt64s("starts", starts.tolist())
        node.attributes["ends"] = ir.AttrInt64s("ends", ends.tolist())
    else:
        set_constant(alive, node, 1, starts)
        set_constant(alive, node, 2, ends)
