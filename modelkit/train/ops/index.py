"""Reading and writing by position."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported, as_list, axis_of


def _positive(index: Tensor, length: int) -> Tensor:
    """Positions counted from the end become positions counted from the start."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + length, index)


def gather(op: Op) -> Kernel:
    """``Gather``: whole slices along an axis."""
    axis = op.integer("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        along = axis_of(axis, x.ndim)
        if index.ndim == 0 and index.device.type == "cpu":
            return x.select(along, int(index))
        positions = _positive(index, x.shape[along])
        if along == 0 and x.ndim == 2 and x.dtype.is_floating_point:
            return F.embedding(positions, x)
        y = x.index_select(along, positions.reshape(-1))
        return y.reshape(*x.shape[:along], *index.shape, *x.shape[along + 1 :])

    return run


def gather_elements(op: Op) -> Kernel:
    """``GatherElements``."""
    axis = op.integer("axis", 0)
    return lambda x, index: torch.gather(x, axis, _positive(index, x.shape[axis]))


def gather_nd(op: Op) -> Kernel:
    """``GatherND``: the index's last axis names positions in the axes after the batch's."""
    batch = op.integer("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        depth = index.shape[-1]
        lead = x.shape[:batch]
        flat = x.reshape(-1, *x.shape[batch:])
        where = index.reshape(flat.shape[0], -1, depth)
        rows = torch.arange(flat.shape[0], device=index.device).unsqueeze(1).expand(where.shape[:2])
        parts = [_positive(where[..., i], flat.shape[i + 1]) for i in range(depth)]
        return flat[(rows, *parts)].reshape(*lead, *index.shape[batch:-1], *x.shape[batch + depth :])

    return run


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter_elements(op: Op) -> Kernel:
    """``ScatterElements`` (and ``Scatter`` before opset 11), with a reduction from opset 16 on."""
    axis, reduction = op.integer("axis", 0), op.text("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        positions = _positive(index, x.shape[axis])
        if reduction == "none":
            return torch.scatter(x, axis, positions, updates)
        return torch.scatter_reduce(x, axis, positions, updates, _REDUCE[reduction], include_self=True)

    return run


def scatter_nd(op: Op) -> Kernel:
    """``ScatterND``: writes slices, with a reduction from opset 16 on."""
    reduction = op.text("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        depth = index.shape[-1]
        parts = [_positive(index[..., i], x.shape[i]) for i in range(depth)]
        if reduction == "none":
            return x.index_put(tuple(parts), updates)
        if reduction == "add":
            return x.index_put(tuple(parts), updates, accumulate=True)
        # Rows of the flattened leading axes, reduced one by one.
        row = torch.zeros_like(parts[0])
        for part, length in zip(parts, x.shape[:depth], strict=True):
            row = row * length + part
        flat = x.reshape(-1, *x.shape[depth:])
        values = updates.reshape(-1, *x.shape[depth:])
        where = row.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values)
        return torch.scatter_reduce(flat, 0, where, values, _REDUCE[reduction], include_self=True).reshape(x.shape)

    return run


def top_k(op: Op) -> Kernel:
    """``TopK``: k is an attribute before opset 10; of equals the lower index comes first."""
    axis, largest, fixed = op.integer("axis", -1), op.flag("largest", True), op.value("k")

    def run(x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
        count = fixed if k is None else int(as_list(k)[0])
        values, where = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, count), where.narrow(axis, 0, count)

    return run


def nonzero(op: Op) -> Kernel:
    """``NonZero``: one row for each axis."""

    def run(x: Tensor) -> Tensor:
        return torch.nonzero(x.reshape(1) if x.ndim == 0 else x).t()[: x.ndim]

    return run


def one_hot(op: Op) -> Kernel:
    """``OneHot``: an index out of range makes a row of "off"."""
    axis = op.integer("axis", -1)

    def run(index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = int(as_list(depth)[0])
        where = _positive(index, count).unsqueeze(axis_of(axis, index.ndim + 1))
        shape = [1] * where.ndim
        shape[axis] = count
        hit = where == torch.arange(count, device=index.device).reshape(shape)
        return torch.where(hit, values[1], values[0])

    return run


def compress(op: Op) -> Kernel:
    """``Compress``: what a condition selects, along an axis or of the flattened tensor."""
    axis = op.value("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        chosen = torch.nonzero(condition).reshape(-1)
        return x.reshape(-1).index_select(0, chosen) if axis is None else x.index_select(axis, chosen)

    return run


def reverse_sequence(op: Op) -> Kernel:
    """``ReverseSequence``: the first so many steps of each sample, backwards."""
    batch, time = op.integer("batch_axis", 1), op.integer("time_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        y = x.movedim((time, batch), (0, 1))
        steps = torch.arange(y.shape[0], device=x.device).unsqueeze(1)
        length = lengths.to(torch.int64).unsqueeze(0)
        source = torch.where(steps < length, length - 1 - steps, steps)
        columns = torch.arange(y.shape[1], device=x.device).unsqueeze(0).expand_as(source)
        return y[source, columns].movedim((0, 1), (time, batch))

    return run


def unique(op: Op) -> Kernel:
    """``Unique``: sorted, or in the order of first appearance."""
    axis, in_order = op.value("axis"), op.flag("sorted", True)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1) if axis is None else x
        along = 0 if axis is None else axis_of(axis, x.ndim)
        values, inverse, counts = torch.unique(flat, return_inverse=True, return_counts=True, dim=along)
        places = torch.arange(inverse.numel(), device=x.device)
        first = torch.full((counts.numel(),), inverse.numel(), device=x.device).scatter_reduce(
            0, inverse.reshape(-1), places, "amin"
        )
        if in_order:
            return values, first, inverse.reshape(-1), counts
        order = first.argsort()
        rank = torch.empty_like(order).scatter(0, order, torch.arange(order.numel(), device=x.device))
        return values.index_select(along, order), first[order], rank[inverse.reshape(-1)], counts[order]

    return run


def tensor_scatter(op: Op) -> Kernel:
    """``TensorScatter``: writes new steps into a cache, from a position of each sample's own."""
    axis, mode = op.integer("axis", -2), op.text("mode", "linear")
    if mode not in ("linear", "circular"):
        raise Unsupported(f"its mode '{mode}' is unknown")

    def run(cache: Tensor, update: Tensor, start: Tensor | None = None) -> Tensor:
        along = axis_of(axis, cache.ndim)
        steps = torch.arange(update.shape[along], device=cache.device)
        first = torch.zeros(cache.shape[0], dtype=torch.int64, device=cache.device) if start is None else start
        where = first.reshape(-1, 1) + steps
        if mode == "circular":
            where = where % cache.shape[along]
        shape = [1] * cache.ndim
        shape[0], shape[along] = where.shape
        return torch.scatter(cache, along, where.reshape(shape).expand_as(update), update)

    return run


OPS: dict[str, Builder] = {
    "Compress": compress,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": nonzero,
    "OneHot": one_hot,
    "ReverseSequence": reverse_sequence,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "TopK": top_k,
    "Unique": unique,
}
