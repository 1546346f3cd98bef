"""The state of one pass over a graph that states, node by node, how channels hang together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.group import Kind
from modelkit.graph.channels.layout import Block, Layout, moved, rows
from modelkit.graph.channels.relations import FIXED, Relations
from modelkit.graph.channels.sizes import Sizes
from modelkit.graph.edit import Namer
from modelkit.graph.tensors import constant_of


class Alive:
    """Which ids stay, asked for by the edits of a cut.

    Args:
        mask: Bool by id.
        namer: Gives names to the constants that edits add.
    """

    def __init__(self, mask: np.ndarray, namer: Namer) -> None:
        self._mask = np.append(mask, True)  # FIXED is the last
        self.namer = namer

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Which of these ids stay."""
        return np.asarray(self._mask[ids])

    def count(self, ids: np.ndarray) -> int:
        """How many of these ids stay."""
        return int(self._mask[ids].sum())

    def size(self, block: Block, axis: int) -> int:
        """New size of a tensor's axis."""
        alive = self(block.ids)
        position = block.axes.index(axis)
        if position == len(block.axes) - 1:
            return int(alive.sum(axis=-1).max())
        return int(alive.any(axis=tuple(i for i in range(alive.ndim) if i != position)).sum())


Edit = Callable[[Alive], None]


@dataclass(frozen=True)
class Operand:
    """A tensor in a space of axes that several tensors share.

    Attributes:
        layout: Its layout.
        axes: For each of its axes, the number in the shared space.
    """

    layout: Layout
    axes: tuple[int, ...]


class Walk:
    """Layouts of all values seen so far, relations between ids, and the edits that a cut will need.

    Args:
        model: The model.
        sizes: The shapes of its values.
    """

    def __init__(self, model: ir.Model, sizes: Sizes) -> None:
        self.model = model
        self.sizes = sizes
        self.relations = Relations()
        self.layouts: dict[ir.Value, Layout | None] = {}
        self.initializers: dict[ir.Value, list[np.ndarray]] = {}
        self.sectioned: dict[ir.Value, tuple[np.ndarray, int]] = {}
        self.kinds: list[tuple[np.ndarray, Kind, ir.Node]] = []
        self.origins: list[np.ndarray] = []
        self.edits: list[tuple[ir.Node, Edit]] = []
        # Whether a removed channel is 0 here once its weights are set to zero.
        self.vanishes: dict[ir.Value, bool] = {}
        self.constant: set[ir.Value] = set()

    # What is known of values ------------------------------------------------------------------------------

    def layout(self, value: ir.Value | None) -> Layout | None:
        """Return a value's layout; None where it is absent or its shape is not known."""
        if value is None:
            return None
        if value not in self.layouts:
            self.layouts[value] = self._initializer(value) if value.is_initializer() else self.plain(value)
        return self.layouts[value]

    def plain(self, value: ir.Value) -> Layout | None:
        """Return a value's shape without any ids."""
        shape = self.sizes.shapes.get(value)
        return None if shape is None else Layout(shape, self.sizes.static[value])

    def put(self, value: ir.Value, blocks: Sequence[Block], reason: str) -> None:
        """Set the ids of a node's output; where its shape is not known nothing that leads here can go."""
        layout = self.plain(value)
        if layout is None:
            for block in blocks:
                self.relations.freeze(block.ids, f"the shape of '{value.name}' is not known")
        else:
            for block in blocks:
                if len(block.axes) > 1:
                    self.relations.box(block.ids, reason)
            narrow = [_without_single(block) for block in blocks]
            layout = layout.with_blocks([block for block in narrow if block.axes])
        self.layouts[value] = layout

    def axis_ids(self, layout: Layout, axis: int, reason: str) -> np.ndarray:
        """Ids along one axis; fixed where it has none, or shares them with other axes (which then stay)."""
        block = layout.block_at(axis)
        if block is not None and len(block.axes) == 1:
            return block.ids
        if block is not None:
            self.relations.freeze(block.ids, reason)
        return np.full(layout.shape[axis], FIXED, np.int64)

    def make(self, *shape: int) -> np.ndarray:
        """Return new ids that begin here, for positions that a node makes."""
        ids = self.relations.fresh(*shape)
        self.origins.append(ids.reshape(-1))
        return ids

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether a value depends on weights only."""
        return value is not None and (value in self.constant or constant_of(value) is not None)

    # What ops state ---------------------------------------------------------------------------------------

    def mark(self, ids: np.ndarray, kind: Kind, node: ir.Node) -> None:
        """State what an axis of a weight is for."""
        ids = ids[ids != FIXED]
        self.kinds.append((ids, kind, node))
        if kind == "produces":
            self.origins.append(ids)

    def on_cut(self, node: ir.Node, edit: Edit) -> None:
        """State what has to change in a node, beside its weights, when channels go."""
        self.edits.append((node, edit))

    def freeze_inputs(self, node: ir.Node, reason: str) -> None:
        """State that nothing that a node reads can go."""
        for value in node.inputs:
            self.freeze_value(value, reason)

    def freeze_value(self, value: ir.Value | None, reason: str) -> None:
        """State that nothing in a value can go."""
        layout = self.layout(value)
        if layout is not None:
            self.relations.freeze(layout.ids(), reason)

    def merge(self, operands: Sequence[Operand], reason: str) -> list[Block]:
        """Align tensors in a space of shared axes, as an elementwise op does with broadcasting.

        Args:
            operands: The tensors. One that is of size 1 along an axis, or lacks it, says nothing about it.
            reason: Why channels stay that meet something whose size is fixed.

        Returns:
            Ids over the shared axes.
        """
        blocks = [[moved(b, [op.axes[a] for a in b.axes]) for b in op.layout.blocks] for op in operands]
        bound: set[int] = set()
        for op, own in zip(operands, blocks, strict=True):
            covered = {a for block in own for a in block.axes}
            extent = {op.axes[a] for a in range(op.layout.rank) if op.layout.extends(a)}
            bound |= extent - covered
        found: list[Block] = []
        everything = [block for own in blocks for block in own]
        for axes in _connected([set(block.axes) for block in everything]):
            merged = self._merge(axes, [b for b in everything if set(b.axes) <= axes], bound, reason)
            if merged is not None:
                found.append(merged)
        return found

    def contract(self, operands: Sequence[Operand], summed: set[int], reason: str, exact: bool = True) -> list[Block]:
        """Align tensors as ``merge`` does and sum over some axes, as matrix products do.

        Args:
            operands: The tensors.
            summed: The axes that disappear.
            reason: As in ``merge``.
            exact: Whether a removed channel adds nothing to the sum.

        Returns:
            Ids over the axes that stay, in the shared numbering.
        """
        found: list[Block] = []
        for block in self.merge(operands, reason):
            gone = [a for a in block.axes if a in summed]
            if gone and not exact:
                self.relations.change(block.ids, f"{reason}, where removed channels would not be zero")
            if len(gone) == len(block.axes):
                continue
            found.append(self.collapse(block, gone, reason) if gone else block)
        return found

    def collapse(self, block: Block, gone: Sequence[int], reason: str) -> Block:
        """Give up the ids along some axes of a block: what lies along them goes together."""
        kept = [a for a in block.axes if a not in gone]
        order = [*(block.axes.index(a) for a in kept), *(block.axes.index(a) for a in gone)]
        ids = block.ids.transpose(order)
        ids = ids.reshape(*ids.shape[: len(kept)], -1)
        self.relations.tie(ids[..., :1], ids, reason)
        return Block(tuple(kept), ids[..., 0])

    # Insides ----------------------------------------------------------------------------------------------

    def _initializer(self, value: ir.Value) -> Layout | None:
        """Every axis of an initializer gets ids of its own; what never shrinks stays without relations."""
        tensor = constant_of(value)
        if tensor is None:
            return self.plain(value)
        shape = tuple(int(d) for d in tensor.shape.numpy())
        ids = [self.relations.fresh(size) for size in shape]
        self.initializers[value] = ids
        if value.is_graph_output():
            for axis in ids:
                self.relations.freeze(axis, f"the weight '{value.name}' is an output of the model")
        blocks = [Block((axis,), ids[axis]) for axis, size in enumerate(shape) if size != 1]
        self.vanishes.setdefault(value, tensor.size > 1 or not np.any(tensor.numpy()))
        return Layout(shape, (True,) * len(shape), tuple(blocks))

    def _merge(self, axes: set[int], blocks: list[Block], bound: set[int], reason: str) -> Block | None:
        same_axes = all(set(block.axes) == axes for block in blocks)
        if same_axes and not axes & bound and len({block.ids.shape for block in blocks}) == 1:
            for block in blocks[1:]:
                self.relations.same(blocks[0].ids, block.ids, reason)
            return blocks[0]
        largest = max(blocks, key=lambda b: len(b.axes))
        free = [a for a in sorted(axes - bound) if a in largest.axes]
        if not free or len({b.ids.shape[b.axes.index(free[0])] for b in blocks if free[0] in b.axes}) != 1:
            for block in blocks:
                self.relations.freeze(block.ids, reason)
            return None
        # Several axes at once, as heads and their widths: whole rows along the first axis go together, and
        # what lies along the others stays.
        main = free[0]
        first = rows(largest, main)
        for block in blocks:
            if main not in block.axes:
                self.relations.freeze(block.ids, reason)
                continue
            self.relations.tie(first[:, :1], rows(block, main), reason)
            if block.axes == largest.axes and block.ids.shape == largest.ids.shape:
                self.relations.same(largest.ids, block.ids, reason)
        return largest


def identity(values: Mapping[int, Layout], rank: int) -> list[Operand]:
    """Operands aligned at their last axes, as numpy broadcasts."""
    return [Operand(layout, tuple(range(rank - layout.rank, rank))) for layout in values.values()]


def _without_single(block: Block) -> Block:
    """Leave out the axes along which there is one position."""
    kept = [i for i, size in enumerate(block.ids.shape) if size != 1]
    return Block(tuple(block.axes[i] for i in kept), block.ids.reshape([block.ids.shape[i] for i in kept]))


def _connected(sets: list[set[int]]) -> list[set[int]]:
    found: list[set[int]] = []
    for each in sets:
        joined = set(each)
        apart = []
        for other in found:
            if other & joined:
                joined |= other
            else:
                apart.append(other)
        found = [*apart, joined]
    return sorted(found, key=min)
