"""Normalisations, reductions, pooling and resizing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.layout import Block, Layout
from modelkit.graph.channels.rules_elementwise import describe
from modelkit.graph.channels.rules_products import refuse
from modelkit.graph.channels.targets import shrink_target
from modelkit.graph.channels.walk import Operand, Walk
from modelkit.graph.tensors import attribute_int, constant_of, opset_of


def per_channel(walk: Walk, node: ir.Node) -> None:
    """BatchNormalization, InstanceNormalization: one number per channel, axis 1."""
    source, output, reason = node.inputs[0], node.outputs[0], describe(node)
    before = walk.layout(source)
    numbers = [walk.layout(value) for value in node.inputs[1:] if value is not None]
    if before is None or any(layout is None for layout in numbers):
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    training = attribute_int(node, "training_mode", 0) or any(
        v.uses() or v.is_graph_output() for v in node.outputs[1:]
    )
    if training or (opset_of(walk.model) < 9 and attribute_int(node, "spatial", 1) != 1):
        refuse(walk, node, f"{reason} is in training mode or not per channel")
        return
    operands = [Operand(before, tuple(range(before.rank)))]
    operands += [Operand(layout, (1,)) for layout in numbers if layout is not None]
    if node.op_type == "InstanceNormalization":
        _across(walk, before, range(2, before.rank), reason)
    walk.put(output, walk.merge(operands, f"{reason} combines it with something that cannot shrink"), reason)
    walk.vanishes[output] = all(walk.vanishes.get(v, False) for v in node.inputs[1:3] if v is not None)


def over_last(walk: Walk, node: ir.Node) -> None:
    """LayerNormalization, RMSNormalization: statistics over the last axes change with every cut there."""
    source, output, reason = node.inputs[0], node.outputs[0], describe(node)
    before = walk.layout(source)
    numbers = [walk.layout(value) for value in node.inputs[1:] if value is not None]
    if before is None or any(layout is None for layout in numbers):
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        refuse(walk, node, f"{reason} gives its statistics too")
        return
    axis = attribute_int(node, "axis", -1) % before.rank
    _across(walk, before, range(axis, before.rank), reason)
    operands = [Operand(before, tuple(range(before.rank)))]
    operands += [Operand(n, tuple(range(before.rank - n.rank, before.rank))) for n in numbers if n is not None]
    walk.put(output, walk.merge(operands, f"{reason} combines it with something that cannot shrink"), reason)
    walk.vanishes[output] = all(walk.vanishes.get(v, False) for v in node.inputs[1:] if v is not None)


def group_norm(walk: Walk, node: ir.Node) -> None:
    """GroupNormalization: each group keeps as many channels as the others, and its statistics change."""
    before = walk.layout(node.inputs[0])
    if before is None or opset_of(walk.model) < 21:
        refuse(walk, node, f"{describe(node)} has one number per group, or unknown shapes")
        return
    per_channel(walk, node)
    ids = walk.axis_ids(before, 1, describe(node))
    walk.relations.partition(ids.reshape(attribute_int(node, "num_groups", 1), -1), describe(node))
    walk.relations.change(ids, f"{describe(node)} takes statistics over channels")


def reduce(walk: Walk, node: ir.Node) -> None:
    """ReduceMean and the like: axes disappear; over channels the result changes with a cut."""
    source, output, reason = node.inputs[0], node.outputs[0], describe(node)
    before = walk.layout(source)
    axes = _axes(node)
    if before is None or source is None or axes is None:
        refuse(walk, node, f"{reason} has computed axes or unknown shapes")
        return
    if not axes:
        axes = [] if attribute_int(node, "noop_with_empty_axes", 0) else list(range(before.rank))
    gone = {axis % before.rank for axis in axes}
    zero = walk.vanishes.get(source, False)
    exact = zero and node.op_type in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
    blocks = []
    for block in before.blocks:
        lost = [axis for axis in block.axes if axis in gone]
        if lost and node.op_type == "ReduceProd":
            walk.relations.freeze(block.ids, f"{reason} multiplies over it")
            continue
        if lost and not exact:
            walk.relations.change(block.ids, f"{reason} goes over channels")
        if len(lost) < len(block.axes):
            blocks.append(walk.collapse(block, lost, reason) if lost else block)
    if not attribute_int(node, "keepdims", 1):
        kept = [axis for axis in range(before.rank) if axis not in gone]
        blocks = [Block(tuple(kept.index(a) for a in block.axes), block.ids) for block in blocks]
    walk.put(output, blocks, reason)
    walk.vanishes[output] = zero and node.op_type not in ("ReduceLogSum", "ReduceLogSumExp", "ReduceProd")


def along_axis(walk: Walk, node: ir.Node) -> None:
    """Softmax, CumSum and others along one axis: what lies along it stays, all else goes through."""
    source, output, reason = node.inputs[0], node.outputs[0], describe(node)
    before = walk.layout(source)
    if before is None or source is None or not before.rank:
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    if node.op_type == "CumSum":
        given = constant_of(node.inputs[1])
        axes = list(range(before.rank)) if given is None else [int(given.numpy()) % before.rank]
    else:
        old = opset_of(walk.model) < 13 and "Softmax" in node.op_type
        axis = attribute_int(node, "axis", 1 if old or node.op_type == "Hardmax" else -1) % before.rank
        axes = list(range(axis, before.rank)) if old else [axis]
    blocks = []
    for block in before.blocks:
        lost = [axis for axis in block.axes if axis in axes]
        if len(lost) == len(block.axes):
            walk.relations.freeze(block.ids, f"{reason} goes along it")
            continue
        if lost:
            walk.collapse(block, lost, reason)
        blocks.append(block)
    walk.put(output, blocks, reason)
    walk.vanishes[output] = walk.vanishes.get(source, False) and node.op_type in ("CumSum", "LpNormalization")


def spatial(walk: Walk, node: ir.Node) -> None:
    """Pools and Resize: the first two axes go through, what lies along others stays."""
    source, output, reason = node.inputs[0], node.outputs[0], describe(node)
    before = walk.layout(source)
    if before is None or source is None:
        refuse(walk, node, f"the shapes around {reason} are not known")
        return
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        refuse(walk, node, f"{reason} has a second output")
        return
    for block in before.blocks:
        if block.axes not in ((0,), (1,)):
            walk.relations.freeze(block.ids, f"{reason} moves along it")
    walk.put(output, [block for block in before.blocks if block.axes in ((0,), (1,))], reason)
    walk.vanishes[output] = walk.vanishes.get(source, False)


def resize(walk: Walk, node: ir.Node) -> None:
    """Resize, Upsample: channels go through where their number does not change."""
    before, after = walk.layout(node.inputs[0]), walk.plain(node.outputs[0])
    if (
        before is None
        or after is None
        or any(before.shape[a] != after.shape[a] for block in before.blocks for a in block.axes if a < 2)
    ):
        refuse(walk, node, f"{describe(node)} resizes channels or has unknown shapes")
        return
    spatial(walk, node)
    if len(node.inputs) > 3 and node.inputs[3] is not None and "axes" not in node.attributes:
        shrink_target(walk, node, 3)


def across_channels(walk: Walk, node: ir.Node) -> None:
    """LRN: each channel is divided by its neighbours, which change with a cut."""
    before = walk.layout(node.inputs[0])
    if before is not None:
        walk.relations.change(walk.axis_ids(before, 1, describe(node)), f"{describe(node)} looks at near channels")
    spatial(walk, node)


def _across(walk: Walk, before: Layout, axes: range, reason: str) -> None:
    """State that statistics are taken over some axes."""
    for block in before.blocks:
        lost = [axis for axis in block.axes if axis in axes]
        if not lost:
            continue
        if len(lost) < len(block.axes):
            walk.collapse(block, lost, reason)
        else:
            walk.relations.change(block.ids, f"{reason} takes statistics over channels")


def _axes(node: ir.Node) -> list[int] | None:
    if "axes" in node.attributes:
        return [int(a) for a in node.attributes["axes"].as_ints()]
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return []
    given = constant_of(node.inputs[1])
    return None if given is None else [int(a) for a in np.asarray(given.numpy()).reshape(-1)]
