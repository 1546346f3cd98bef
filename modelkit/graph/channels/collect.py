"""Turns the relations between ids into groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graph.channels.group import Group, Kind, Part
from modelkit.graph.channels.relations import FIXED, connect
from modelkit.graph.channels.walk import Walk
from modelkit.graph.layers import WEIGHT_ROLES, Role, weight_uses


@dataclass
class Found:
    """The groups of a model, and which ids their channels have.

    Attributes:
        groups: In topological order.
        group: For each id the number of its group, -1 where it is in none.
        channel: For each id the number of its channel in that group.
    """

    groups: list[Group]
    group: np.ndarray
    channel: np.ndarray


@dataclass(frozen=True)
class _Axis:
    """An axis of an initializer, and what it is for."""

    value: ir.Value
    axis: int
    ids: np.ndarray
    sections: int
    uses: list[tuple[Kind, ir.Node]]


def collect(walk: Walk) -> Found:
    """Find the groups that a walk's relations leave."""
    solution = walk.relations.solve()
    axes = _axes(walk)
    count = walk.relations.count
    component = connect(solution.atom.copy(), [(o[:-1], o[1:]) for o in walk.origins if len(o) > 1])
    made = np.zeros(count, dtype=bool)
    first: dict[int, tuple[int, ir.Node]] = {}
    order = {node: i for i, node in enumerate(walk.model.graph)}
    for axis in axes:
        for kind, node in axis.uses:
            if kind == "produces" and len(axis.ids):
                made[solution.channel[axis.ids]] = True
                key = int(component[axis.ids[0]])
                if key not in first or order.get(node, 0) < first[key][0]:
                    first[key] = order.get(node, 0), node
    # What no weight makes, such as rows of zeros, belongs to the first channel that goes with it.
    channel = solution.channel.copy()
    leader = np.full(count, count, dtype=np.int64)
    makers = np.flatnonzero(made)
    np.minimum.at(leader, solution.atom[makers], makers)
    loose = ~made[channel]
    channel[loose] = leader[solution.atom[loose]]
    number = {key: i for i, (key, _) in enumerate(sorted(first.items(), key=lambda item: item[1][0]))}
    names = _unique(
        [node.name or node.outputs[0].name or node.op_type for _, node in sorted(first.values(), key=lambda f: f[0])]
    )
    group = np.full(count, -1, dtype=np.int64)
    index = np.full(count, -1, dtype=np.int64)
    groups: list[Group] = []
    roots = np.unique(component[makers]) if len(makers) else makers
    by_root = {int(r): np.flatnonzero(component == r) for r in roots}
    for key, _ in sorted(number.items(), key=lambda item: item[1]):
        ids = by_root[key]
        ids = ids[channel[ids] < count]
        labels, inverse = np.unique(channel[ids], return_inverse=True)
        group[ids], index[ids] = number[key], inverse
        _, atoms = np.unique(solution.atom[labels], return_inverse=True)
        groups.append(Group(names[number[key]], len(labels), [], atoms.astype(np.int64)))
    found = Found(groups, group, index)
    _add_parts(found, axes, order)
    _add_activations(found, walk)
    for ids, reason in walk.relations.frozen:
        for g in _groups_of(found, ids):
            groups[g].frozen = groups[g].frozen or reason
    for ids, reason in walk.relations.inexact:
        for g in _groups_of(found, ids):
            groups[g].exact, groups[g].inexact = False, groups[g].inexact or reason
    _add_sections(found, walk, solution.atom)
    for each in groups:
        each.frozen = each.frozen or _stuck(each)
    _add_unfollowed(found, walk.model, order)
    return found


def _add_sections(found: Found, walk: Walk, atom: np.ndarray) -> None:
    """Where ids lie over several axes at once, what is left of them has to be a full array again."""

    def atoms(ids: np.ndarray) -> np.ndarray:
        return np.where(ids == FIXED, FIXED, atom[ids])

    for ids, reason in walk.relations.boxes:
        uneven = _uneven(atoms(ids), ids)
        if uneven is not None:
            _divide(found, uneven, reason)
    for ids, whole, reason in walk.relations.pieces:
        if _uneven(atoms(whole), whole) is not None:
            _divide(found, ids.reshape(-1, ids.shape[-1]), reason)
    for ids, reason in walk.relations.rigid:
        if _uneven(atoms(ids), ids) is not None:
            for g in _groups_of(found, ids):
                found.groups[g].frozen = found.groups[g].frozen or f"{reason} counts positions in it"
    for ids, reason in walk.relations.partitions:
        _divide(found, ids, reason)


def fill(channels: np.ndarray, count: int, positions: np.ndarray) -> np.ndarray:
    """Arrange positions by channel, as [count, k] filled up with -1.

    Args:
        channels: Channel of each position.
        count: Number of channels.
        positions: The positions.
    """
    sizes = np.bincount(channels, minlength=count)
    table = np.full((count, int(sizes.max(initial=0))), -1, dtype=np.int64)
    order = np.argsort(channels, kind="stable")
    starts = np.cumsum(sizes) - sizes
    table[channels[order], np.arange(len(order)) - starts[channels[order]]] = positions[order]
    return table


def _axes(walk: Walk) -> list[_Axis]:
    """All axes of initializers with their parts."""
    axes = [
        _Axis(value, axis, ids, 1, [])
        for value, all_ids in walk.initializers.items()
        for axis, ids in enumerate(all_ids)
        if value not in walk.sectioned or axis != 1
    ]
    axes += [_Axis(value, 1, ids, sections, []) for value, (ids, sections) in walk.sectioned.items()]
    owner = np.full(walk.relations.count, -1, dtype=np.int64)
    for number, axis in enumerate(axes):
        owner[axis.ids] = number
    for ids, kind, node in walk.kinds:
        for number in np.unique(owner[ids]):
            uses = axes[number].uses if number >= 0 else []
            if (kind, node) not in uses:
                uses.append((kind, node))
    for axis in axes:
        if not axis.uses:
            axis.uses.extend(("follows", user) for user in dict.fromkeys(u for u, _ in axis.value.uses()))
    return axes


def _add_parts(found: Found, axes: list[_Axis], order: dict[ir.Node, int]) -> None:
    for axis in axes:
        for g in _groups_of(found, axis.ids):
            inside = found.group[axis.ids] == g
            positions = np.flatnonzero(inside)
            index = fill(found.channel[axis.ids[inside]], found.groups[g].channels, positions)
            for kind, node in axis.uses:
                found.groups[g].parts.append(Part(axis.value, axis.axis, index, kind, node, axis.sections))
    for group in found.groups:
        group.parts.sort(key=lambda part: order.get(part.node, -1))


def _add_unfollowed(found: Found, model: ir.Model, order: dict[ir.Node, int]) -> None:
    """List the layers whose output channels are in no group: nothing can be cut there, and reports say why."""
    makers = {(part.node, part.value) for group in found.groups for part in group.parts if part.kind == "produces"}
    nodes = {node for node, _ in makers}
    names = {group.name for group in found.groups}
    for use in weight_uses(model):
        shape = use.value.const_value.shape.numpy() if use.value.const_value is not None else ()
        if use.role not in WEIGHT_ROLES | {Role.QUANTIZED} or len(shape) < 2:
            continue
        for node, _ in use.consumers:
            if node in nodes or (node, use.value) in makers:
                continue
            nodes.add(node)
            count = int(shape[use.channel_axis if use.channel_axis is not None else 0])
            if use.role is Role.QUANTIZED:
                reason = "its weights are quantized already"
            elif node not in order:
                reason = "it lies in a subgraph"
            else:
                reason = f"the channels that {node.op_type} makes here are not followed"
            name = _unique([*names, node.name or node.outputs[0].name or node.op_type])[-1]
            names.add(name)
            found.groups.append(Group(name, count, [], np.arange(count), frozen=reason))


def _add_activations(found: Found, walk: Walk) -> None:
    for value, layout in walk.layouts.items():
        if layout is None or walk.is_constant(value):
            continue
        for block in layout.blocks:
            ids = block.ids.reshape(-1)
            known = ids[ids != FIXED]
            owners = _groups_of(found, known)
            for g in owners:
                inside = np.zeros(len(ids), dtype=bool)
                inside[ids != FIXED] = found.group[known] == g
                channels = found.channel[ids[inside]]
                each = found.groups[g]
                if len(block.axes) == 1:
                    each.activations.append(
                        (value, block.axes[0], fill(channels, each.channels, np.flatnonzero(inside)))
                    )
                if len(owners) == 1 and inside.all():
                    piece = np.zeros(each.channels, dtype=bool)
                    piece[channels] = True
                    if not piece.all() and not any(np.array_equal(piece, other) for other in each.pieces):
                        each.pieces.append(piece)


def _groups_of(found: Found, ids: np.ndarray) -> list[int]:
    ids = ids.reshape(-1)
    numbers = np.unique(found.group[ids[ids != FIXED]])
    return [int(g) for g in numbers if g >= 0]


def _uneven(atoms: np.ndarray, ids: np.ndarray) -> np.ndarray | None:
    """What is left of a box after leaving out axes along which everything goes together.

    Returns:
        [rows, n] ids whose rows have to keep the same number, or None where any choice leaves a box.
    """
    axis = 0
    while axis < atoms.ndim:
        line = atoms.take([0], axis=axis)
        if (atoms == line).all():
            atoms, ids = line.squeeze(axis), ids.take(0, axis=axis)
            axis = 0
        else:
            axis += 1
    return ids.reshape(-1, ids.shape[-1]) if ids.ndim > 1 else None


def _divide(found: Found, ids: np.ndarray, reason: str) -> None:
    """Let each row of ids keep as many channels as the others."""
    owners = _groups_of(found, ids)
    known = ids.reshape(-1)[ids.reshape(-1) != FIXED]
    if not owners:
        return
    if len(owners) > 1 or len(known) != ids.size or (found.group[known] != owners[0]).any():
        for g in owners:
            found.groups[g].frozen = found.groups[g].frozen or f"{reason} cuts it together with other channels"
        return
    group = found.groups[owners[0]]
    channels = found.channel[ids]
    row = np.full(group.channels, -1, dtype=np.int64)
    row[channels] = np.arange(len(ids))[:, None]
    repeated = (row[channels] != np.arange(len(ids))[:, None]).any()
    if repeated or (row < 0).any():
        group.frozen = group.frozen or f"{reason} cuts it into uneven sections"
        return
    if group.partition is not None:
        pairs, row = np.unique(np.stack([group.partition, row]), axis=1, return_inverse=True)
        cells = [np.bincount(side) for side in pairs]
        if any(sizes.min() != sizes.max() for sizes in cells):
            group.frozen = group.frozen or f"{reason} cuts it into other sections than the rest of the graph does"
            return
    sizes = np.bincount(row.reshape(-1))
    if sizes.min() != sizes.max():
        group.frozen = group.frozen or f"{reason} cuts it into uneven sections"
        return
    group.partition = row.reshape(-1).astype(np.int64)


def _stuck(group: Group) -> str | None:
    """Why no choice of channels can go although nothing else stands in the way."""
    if group.channels == 1:
        return "it has a single channel"
    if not group.atoms.any():
        return "all its channels go together"
    if group.partition is not None:
        smallest = min(len(np.unique(group.atoms[group.partition == p])) for p in np.unique(group.partition))
        if smallest == 1:
            return "each section that has to keep as many channels as the others has only one to give"
    return None


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique
