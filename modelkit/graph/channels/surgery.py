"""Takes channels out of a model, or sets them to zero for comparison."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.channels.analyse import analyse
from modelkit.graph.channels.collect import collect
from modelkit.graph.channels.group import Group, Part
from modelkit.graph.channels.layout import Layout
from modelkit.graph.channels.walk import Alive, Walk
from modelkit.graph.edit import Namer, drop_unused_initializers
from modelkit.graph.shapes import infer_shapes
from modelkit.graph.tensors import constant_of

# Inputs that divide or raise: zeros in them would not be zeros behind them.
_NOT_ZEROED = {("Div", 1), ("Pow", 1), ("Mod", 1), ("BatchNormalization", 3), ("BatchNormalization", 4)}

_KEPT = "modelkit.kept"


def find_groups(model: ir.Model) -> list[Group]:
    """List the groups of channels of a normalised model, in topological order.

    Sizes that the graph reads off shapes and that never change become constants, in place; what the model
    computes stays the same.

    Args:
        model: A normalised model.

    Returns:
        All groups, also those in which nothing can be cut (``frozen`` says why).
    """
    return collect(analyse(model)).groups


def cut(model: ir.Model, keep: Mapping[str, np.ndarray]) -> list[Decision]:
    """Take channels out of a model, in place.

    Args:
        model: A normalised model.
        keep: For some groups, by name, what stays: numbers of channels, or bool [channels].

    Returns:
        A decision for each group that was cut.

    Raises:
        ModelError: There is no such group, or these channels cannot be what stays; nothing changed then.
    """
    walk = analyse(model)
    found = collect(walk)
    chosen = _check(found.groups, keep)
    mask = np.ones(walk.relations.count, dtype=bool)
    for number, group in enumerate(found.groups):
        if group.name in chosen:
            own = found.group == number
            mask[own] = chosen[group.name][found.channel[own]]
    decisions = [_decide(group, chosen[group.name]) for group in found.groups if group.name in chosen]
    alive = Alive(mask, Namer(model))
    for _, edit in walk.edits:
        edit(alive)
    for value, ids in walk.initializers.items():
        _slice(walk, value, ids, alive)
    for value, layout in walk.layouts.items():
        if layout is not None and layout.blocks and not value.is_initializer():
            _reshape(value, layout, alive)
    drop_unused_initializers(model)
    infer_shapes(model)
    return decisions


def zeroed(model: ir.Model, keep: Mapping[str, np.ndarray]) -> ir.Model:
    """Return a copy in which the channels that a cut would take out are zero.

    Zeros go into the weights that make them, into biases and scales, and into the weights that use them.
    For exact groups the copy computes what the cut model computes.

    Args:
        model: A normalised model; its constants for sizes are set as ``find_groups`` does.
        keep: As for ``cut``.

    Raises:
        ModelError: As for ``cut``.
    """
    copy = model.clone()
    found = collect(analyse(copy))
    chosen = _check(found.groups, keep)
    for group in found.groups:
        if group.name not in chosen:
            continue
        gone = np.flatnonzero(~chosen[group.name])
        for part in group.parts:
            if part.kind != "follows" or _zeroable(part):
                _zero(part, gone)
    return copy


def _check(groups: list[Group], keep: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bool masks of what stays, for the groups that change."""
    by_name = {group.name: group for group in groups}
    chosen: dict[str, np.ndarray] = {}
    for name, given in keep.items():
        group = by_name.get(name)
        if group is None:
            near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.3) or list(by_name)[:3]
            raise ModelError(f"the model has no group of channels '{name}'", f"there are such as {', '.join(near)}")
        given = np.asarray(given)
        mask = np.zeros(group.channels, dtype=bool)
        if given.dtype == bool and given.shape == mask.shape:
            mask = given.copy()
        elif given.ndim == 1 and given.dtype.kind in "iu" and ((given >= 0) & (given < group.channels)).all():
            mask[given] = True
        else:
            raise ModelError(
                f"channels of '{name}': numbers from 0 to {group.channels - 1} are expected",
                f"or {group.channels} times True or False",
            )
        if mask.all():
            continue
        problem = group.problem(mask)
        if problem is not None:
            raise ModelError(f"these channels of '{name}' cannot be taken out: {problem}")
        chosen[name] = mask
    return chosen


def _decide(group: Group, mask: np.ndarray) -> Decision:
    kept = int(mask.sum())
    reason = f"{kept} of {group.channels} channels stay"
    return Decision(group.name, "cut", reason, {"channels": group.channels, "kept": kept})


def _slice(walk: Walk, value: ir.Value, ids: list[np.ndarray], alive: Alive) -> None:
    tensor = constant_of(value)
    assert tensor is not None
    sectioned = walk.sectioned.get(value)
    masks = [alive(axis) for axis in ids]
    if all(mask.all() for mask in masks) and (sectioned is None or alive(sectioned[0]).all()):
        return
    array = tensor.numpy()
    if sectioned is not None:
        columns, count = alive(sectioned[0]).reshape(sectioned[1], -1), sectioned[1]
        blocks = np.split(array, count)
        rows = np.split(masks[0], count)
        array = np.concatenate([b[r][:, c] for b, r, c in zip(blocks, rows, columns, strict=True)])
    else:
        for axis, mask in enumerate(masks):
            if not mask.all():
                array = np.compress(mask, array, axis=axis)
                _remember(value, axis, mask)
    value.const_value = ir.Tensor(np.ascontiguousarray(array), tensor.dtype, name=value.name)
    value.shape = ir.Shape(array.shape)


def _remember(value: ir.Value, axis: int, mask: np.ndarray) -> None:
    """Note which positions of the original are left along an axis, over any number of cuts."""
    # A clone shares what its original's meta holds: what is there is replaced, never changed.
    kept = dict(value.meta.get(_KEPT, {}))
    kept[axis] = kept.get(axis, np.arange(len(mask)))[mask]
    value.meta[_KEPT] = kept


def kept_positions(model: ir.Model) -> dict[str, dict[int, np.ndarray]]:
    """Tell what ``cut`` left of each initializer: by name and axis, positions in the model as it was first.

    Weights whose columns differ from one block of rows to the next are not listed.
    """
    return {
        name: dict(value.meta[_KEPT])
        for name, value in model.graph.initializers.items()
        if value.meta.get(_KEPT) is not None
    }


def _reshape(value: ir.Value, layout: Layout, alive: Alive) -> None:
    """Write the new sizes into a value's shape, whose other dimensions may be symbolic."""
    if value.shape is None or value.is_graph_output() or len(value.shape) != layout.rank:
        return
    dims = list(value.shape)
    for block in layout.blocks:
        for axis in block.axes:
            if layout.static[axis] and isinstance(dims[axis], int):
                dims[axis] = alive.size(block, axis)
    value.shape = ir.Shape(dims)


def _zeroable(part: Part) -> bool:
    return not any(
        value is part.value and (part.node.op_type, i) in _NOT_ZEROED for i, value in enumerate(part.node.inputs)
    )


def _zero(part: Part, gone: np.ndarray) -> None:
    tensor = constant_of(part.value)
    assert tensor is not None
    array = tensor.numpy().copy()
    if part.sections == 1:
        positions = part.positions(gone)
        np.moveaxis(array, part.axis, 0)[positions] = 0
    else:
        for position in part.positions(gone):
            section, column = divmod(int(position), array.shape[1])
            rows = array.shape[0] // part.sections
            array[section * rows : (section + 1) * rows, column] = 0
    part.value.const_value = ir.Tensor(array, tensor.dtype, name=part.value.name)
