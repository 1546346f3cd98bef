"""Ops that only move positions: views, transposes, joins."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.layout import Block, Layout, keeps_order, moved, reshape_block, segments
from modelkit.graph.channels.relations import FIXED
from modelkit.graph.channels.rules_elementwise import describe
from modelkit.graph.channels.rules_products import refuse
from modelkit.graph.channels.targets import set_constant, shrink_target
from modelkit.graph.channels.walk import Alive, Operand, Walk
from modelkit.graph.tensors import attribute_int, constant_of, opset_of


def reshape(walk: Walk, node: ir.Node) -> None:
    """Reshape: ids follow by index arithmetic, over several axes at once where it needs that."""
    if "shape" in node.attributes:
        refuse(walk, node, f"{describe(node)} has its shape in the way of old opsets")
        return
    if view(walk, node):
        shrink_target(walk, node, 1)


def view(walk: Walk, node: ir.Node) -> bool:
    """Reshape, Flatten, Squeeze, Unsqueeze: all are reshapes. Whether the shapes were known."""
    source, output = node.inputs[0], node.outputs[0]
    before, after = walk.layout(source), walk.plain(output)
    reason = describe(node)
    if before is None or after is None or 0 in before.shape:
        refuse(walk, node, f"the shapes around {reason} are not known")
        return False
    runs = segments(before.shape, after.shape)
    blocks: list[Block] = []
    for block in before.blocks:
        touched = [] if runs is None else [run for run in runs if set(run[0]) & set(block.axes)]
        merged = [run for run in touched if len(run[0]) > 1 or len(run[1]) > 1]
        others = [b for b in before.blocks if b is not block and any(set(run[0]) & set(b.axes) for run in merged)]
        if runs is None or others or _of_any_size(before, merged):
            walk.relations.freeze(block.ids, f"{reason} mixes it with other axes")
            continue
        found = reshape_block(block, before.shape, after.shape, runs)
        if found is not None:
            blocks.append(found)
    walk.put(output, blocks, reason)
    if source is not None:
        walk.vanishes[output] = walk.vanishes.get(source, False)
    return True


def _of_any_size(before: Layout, runs: list[tuple[list[int], list[int]]]) -> bool:
    """Whether an axis whose size depends on the input is joined with others or divided.

    A batch is 1 here and in no run, so that (batch, heads) may become (batch * heads): ids then repeat for
    each sample.
    """
    return any(not before.static[axis] and before.block_at(axis) is None for run in runs for axis in run[0])


def transpose(walk: Walk, node: ir.Node) -> None:
    """Transpose: axes change places."""
    source, output = node.inputs[0], node.outputs[0]
    before = walk.layout(source)
    if before is None:
        refuse(walk, node, f"the shapes around {describe(node)} are not known")
        return
    order = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(before.rank)[::-1]
    place = {int(axis): position for position, axis in enumerate(order)}
    blocks = []
    for block in before.blocks:
        axes = [place[axis] for axis in block.axes]
        if not keeps_order(axes):
            # Rows of uneven choices would come out in another order: only whole lines can go.
            longest = max(block.axes, key=lambda a: block.ids.shape[block.axes.index(a)])
            walk.collapse(block, [a for a in block.axes if a != longest], describe(node))
        blocks.append(moved(block, axes))
    walk.put(output, blocks, describe(node))
    if source is not None:
        walk.vanishes[output] = walk.vanishes.get(source, False)
        if walk.is_constant(source):
            walk.layouts[output] = Layout(
                tuple(before.shape[a] for a in order), tuple(before.static[a] for a in order), tuple(blocks)
            )


def concat(walk: Walk, node: ir.Node) -> None:
    """Concat: ids in a row along one axis, aligned along the others."""
    present = [value for value in node.inputs if value is not None]
    layouts = [walk.layout(value) for value in present]
    output, reason = node.outputs[0], describe(node)
    if any(layout is None for layout in layouts) or walk.plain(output) is None:
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    known = [layout for layout in layouts if layout is not None]
    axis = attribute_int(node, "axis", 1) % max(known[0].rank, 1)
    walk.vanishes[output] = all(walk.vanishes.get(value, False) for value in present)
    crossing = [layout.block_at(axis) for layout in known]
    wide = {block.axes for block in crossing if block is not None and len(block.axes) > 1}
    if len(wide) > 1 or (wide and any(block is None or block.axes not in wide for block in crossing)):
        _freeze_all(walk, [b for b in crossing if b is not None], f"{reason} joins it with something else")
        crossing = [None] * len(known)
        wide = set()
    if any(block is not None for block in crossing) and not all(layout.static[axis] for layout in known):
        _freeze_all(walk, [b for b in crossing if b is not None], f"{reason} joins parts of unknown size")
        crossing = [None] * len(known)
    operands = [
        Operand(layout.with_blocks([b for b in layout.blocks if axis not in b.axes]), tuple(range(layout.rank)))
        for layout in known
    ]
    # The joined axis says nothing about alignment: give it a place of its own in each operand.
    rank = known[0].rank
    operands = [
        Operand(op.layout, tuple(rank + i if a == axis else a for a in op.axes)) for i, op in enumerate(operands)
    ]
    blocks = walk.merge(operands, f"{reason} joins it with something that cannot shrink")
    if any(block is not None for block in crossing):
        if wide:
            position = next(iter(wide)).index(axis)
            parts = [b.ids for b in crossing if b is not None]
            joined = Block(next(iter(wide)), np.concatenate(parts, position))
            for part in parts:
                walk.relations.piece(part, joined.ids, reason)
        else:
            pieces = [
                np.full(layout.shape[axis], FIXED, np.int64) if block is None else block.ids
                for layout, block in zip(known, crossing, strict=True)
            ]
            joined = Block((axis,), np.concatenate(pieces))
        blocks.append(joined)
    walk.put(output, blocks, reason)


def flatten_like(walk: Walk, node: ir.Node) -> None:
    """Flatten, Unsqueeze, and Squeeze: nothing in them has to change."""
    named = "axes" in node.attributes or (len(node.inputs) > 1 and node.inputs[1] is not None)
    before = walk.layout(node.inputs[0])
    if node.op_type == "Squeeze" and not named and before is not None and not all(before.static):
        refuse(walk, node, f"{describe(node)} names no axes")
        return
    view(walk, node)


def shape_made(walk: Walk, node: ir.Node) -> None:
    """ConstantOfShape: a constant of any size fits itself to what it meets."""
    output = node.outputs[0]
    layout = walk.plain(output)
    if layout is None:
        refuse(walk, node, f"the shape of {describe(node)} is not known")
        return
    blocks = [
        Block((axis,), walk.relations.fresh(size))
        for axis, size in enumerate(layout.shape)
        if size > 1 and layout.static[axis]
    ]
    walk.put(output, blocks, describe(node))
    value = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1)
    walk.vanishes[output] = not value.any()
    shrink_target(walk, node, 0)


def expand(walk: Walk, node: ir.Node) -> None:
    """Expand: where it repeats a single position, the copies fit themselves to what they meet."""
    source, output = node.inputs[0], node.outputs[0]
    before, after = walk.layout(source), walk.plain(output)
    if before is None or after is None:
        refuse(walk, node, f"the shapes around {describe(node)} are not known")
        return
    lead = after.rank - before.rank
    blocks = [moved(block, [axis + lead for axis in block.axes]) for block in before.blocks]
    for axis, size in enumerate(after.shape):
        own = axis - lead
        repeated = own < 0 or (before.shape[own] == 1 and before.static[own])
        if repeated and size > 1 and after.static[axis]:
            blocks.append(Block((axis,), walk.relations.fresh(size)))
    walk.put(output, blocks, describe(node))
    if source is not None:
        walk.vanishes[output] = walk.vanishes.get(source, False)
    shrink_target(walk, node, 1)


def tile(walk: Walk, node: ir.Node) -> None:
    """Tile: ids repeat as the positions do."""
    source, output = node.inputs[0], node.outputs[0]
    before, after = walk.layout(source), walk.plain(output)
    repeats = constant_of(node.inputs[1]) if len(node.inputs) == 2 else None
    if before is None or after is None or repeats is None:
        refuse(walk, node, f"{describe(node)} repeats an unknown number of times")
        return
    times = repeats.numpy()
    blocks = [Block(b.axes, np.tile(b.ids, [int(times[a]) for a in b.axes])) for b in before.blocks]
    walk.put(output, blocks, describe(node))
    if source is not None:
        walk.vanishes[output] = walk.vanishes.get(source, False)


def depth_to_space(walk: Walk, node: ir.Node) -> None:
    """DepthToSpace: the channels that become one channel's pixels go together."""
    before = walk.layout(node.inputs[0])
    if before is None:
        refuse(walk, node, f"the shapes around {describe(node)} are not known")
        return
    size = attribute_int(node, "blocksize", 1) ** 2
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "DCR"
    ids = walk.axis_ids(before, 1, describe(node))
    ids = ids.reshape(size, -1) if mode == "DCR" else ids.reshape(-1, size).T
    walk.relations.same(ids[:1], ids, f"{describe(node)} spreads it over pixels")
    blocks = [block for block in before.blocks if block.axes == (0,)]
    _freeze_all(walk, [b for b in before.blocks if b.axes not in ((0,), (1,))], describe(node))
    if ids.shape[1] > 1:
        blocks.append(Block((1,), ids[0]))
    walk.put(node.outputs[0], blocks, describe(node))
    if node.inputs[0] is not None:
        walk.vanishes[node.outputs[0]] = walk.vanishes.get(node.inputs[0], False)


def space_to_depth(walk: Walk, node: ir.Node) -> None:
    """SpaceToDepth: each channel becomes several, blocks of all channels in a row."""
    before = walk.layout(node.inputs[0])
    if before is None:
        refuse(walk, node, f"the shapes around {describe(node)} are not known")
        return
    ids = np.tile(walk.axis_ids(before, 1, describe(node)), attribute_int(node, "blocksize", 1) ** 2)
    blocks = [block for block in before.blocks if block.axes == (0,)]
    _freeze_all(walk, [b for b in before.blocks if b.axes not in ((0,), (1,))], describe(node))
    if before.block_at(1) is not None:
        blocks.append(Block((1,), ids))
    walk.put(node.outputs[0], blocks, describe(node))
    if node.inputs[0] is not None:
        walk.vanishes[node.outputs[0]] = walk.vanishes.get(node.inputs[0], False)


def pad(walk: Walk, node: ir.Node) -> None:
    """Pad: rows that are added along a channel axis can go as well as any other."""
    source, output, reason = node.inputs[0], node.outputs[0], describe(node)
    before, after = walk.layout(source), walk.plain(output)
    if before is None or after is None:
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    amounts = _pads(walk.model, node, before.rank)
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    filled = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    zero = filled is None and (len(node.inputs) < 3 or node.inputs[2] is None)
    zero = zero or (filled is not None and not filled.numpy().any())
    if amounts is None or mode != "constant":
        loose = [b for b in before.blocks if amounts is None or any(amounts[a].any() for a in b.axes)]
        _freeze_all(walk, loose, f"{reason} adds to it")
        walk.put(output, [b for b in before.blocks if b not in loose], reason)
        return
    blocks, ends = [], {}
    for block in before.blocks:
        ids = block.ids
        if any(amounts[axis].any() for axis in block.axes):
            if len(block.axes) > 1 or amounts[list(block.axes)].min() < 0 or not before.static[block.axes[0]]:
                walk.relations.freeze(ids, f"{reason} adds to it")
                continue
            low, high = (walk.relations.fresh(int(n)) for n in amounts[block.axes[0]])
            ends[block.axes[0]] = (low, high)
            ids = np.concatenate([low, ids, high])
        blocks.append(Block(block.axes, ids))
    walk.put(output, blocks, reason)
    if source is not None:
        walk.vanishes[output] = walk.vanishes.get(source, False) and zero

    def edit(alive: Alive) -> None:
        new = amounts.copy()
        for axis, (low, high) in ends.items():
            new[axis] = alive.count(low), alive.count(high)
        if not np.array_equal(new, amounts):
            _set_pads(walk, alive, node, new)

    if ends:
        walk.on_cut(node, edit)


def _pads(model: ir.Model, node: ir.Node, rank: int) -> np.ndarray | None:
    """Padding as [rank, 2]; None where it is computed."""
    if opset_of(model) < 11:
        return np.array(node.attributes["pads"].as_ints()).reshape(2, -1).T if "pads" in node.attributes else None
    numbers = constant_of(node.inputs[1])
    if numbers is None:
        return None
    given = numbers.numpy().reshape(2, -1).T
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return given
    axes = constant_of(node.inputs[3])
    if axes is None:
        return None
    amounts = np.zeros((rank, 2), dtype=np.int64)
    amounts[axes.numpy()] = given
    return amounts


def _set_pads(walk: Walk, alive: Alive, node: ir.Node, amounts: np.ndarray) -> None:
    if opset_of(walk.model) < 11:
        node.attributes["pads"] = ir.AttrInt64s("pads", [int(n) for n in amounts.T.reshape(-1)])
        return
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        node.replace_input_with(3, None)
    set_constant(alive, node, 1, np.ascontiguousarray(amounts.T.reshape(-1).astype(np.int64)))


def _freeze_all(walk: Walk, blocks: list[Block], reason: str) -> None:
    for block in blocks:
        walk.relations.freeze(block.ids, reason)
