"""GRU, LSTM and RNN: the hidden units, in all gates and both directions at once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.layout import Block, Layout
from modelkit.graph.channels.rules_elementwise import describe
from modelkit.graph.channels.rules_products import refuse
from modelkit.graph.channels.walk import Alive, Walk
from modelkit.graph.tensors import attribute_int

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(walk: Walk, node: ir.Node) -> None:
    """W is [directions, gates * H, I], R [directions, gates * H, H], B [directions, 2 * gates * H]."""
    reason, gates = describe(node), _GATES[node.op_type]
    layouts = [walk.layout(value) for value in node.inputs]
    hidden = attribute_int(node, "hidden_size", 0)
    missing = any(v is not None and layout is None for v, layout in zip(node.inputs, layouts, strict=True))
    weights = [v for v in (*node.inputs[1:4], *node.inputs[7:8]) if v is not None]
    if missing or hidden < 1 or attribute_int(node, "layout", 0) or not all(map(walk.is_constant, weights)):
        refuse(walk, node, f"{reason} has computed weights, unknown shapes or the batch first")
        return
    x, w, r = layouts[:3]
    assert x is not None
    assert w is not None
    assert r is not None
    if 1 in (hidden, w.shape[2]):
        refuse(walk, node, f"{reason} has a single unit or input")
        return
    fixed = f"{reason} combines it with something that cannot shrink"
    units = _axis(walk, w, 1, reason).reshape(gates, hidden)
    walk.mark(units.reshape(-1), "produces", node)
    walk.relations.same(units[:1], units, fixed)
    unit = units[0]
    walk.mark(_axis(walk, r, 1, reason), "produces", node)
    walk.relations.same(_axis(walk, r, 1, reason).reshape(gates, hidden), unit, fixed)
    walk.mark(_axis(walk, r, 2, reason), "consumes", node)
    walk.relations.same(_axis(walk, r, 2, reason), unit, fixed)
    walk.mark(_axis(walk, w, 2, reason), "consumes", node)
    for block in x.blocks:
        if block.axes not in ((1,), (2,)):
            walk.relations.freeze(block.ids, f"{reason} moves along it")
    walk.relations.same(walk.axis_ids(x, 2, reason), _axis(walk, w, 2, reason), fixed)
    for index, axis in ((3, 1), (5, 2), (6, 2), (7, 1)):
        layout = layouts[index] if index < len(layouts) else None
        if layout is not None:
            walk.relations.same(_axis(walk, layout, axis, reason).reshape(-1, hidden), unit, fixed)
    for position, output in enumerate(node.outputs):
        walk.put(output, [Block((3 if position == 0 else 2,), unit)], reason)
        walk.vanishes[output] = _starts_at_zero(walk, node)

    def edit(alive: Alive) -> None:
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", alive.count(unit))

    walk.on_cut(node, edit)


def _axis(walk: Walk, layout: Layout, axis: int, reason: str) -> np.ndarray:
    return walk.axis_ids(layout, axis, reason)


def _starts_at_zero(walk: Walk, node: ir.Node) -> bool:
    return all(value is None or walk.vanishes.get(value, False) for value in node.inputs[5:7])
