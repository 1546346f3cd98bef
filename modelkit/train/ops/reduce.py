"""Reductions along axes, and running sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modelkit.train.ops.op import Builder, Kernel, Op, as_list, axis_of, is_integer

# The opset from which on a reduction reads its axes from an input.
_AXES_ARE_INPUT = {"ReduceSum": 13}
_ELSE = 18

Reducer = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(reducer: Reducer) -> Builder:
    """Read axes as every reduction does: no axes mean all, or none where the node says so."""

    def build(op: Op) -> Kernel:
        keep = op.flag("keepdims", True)
        nothing = op.flag("noop_with_empty_axes")
        as_input = op.opset >= _AXES_ARE_INPUT.get(op.node.op_type, _ELSE)
        fixed = None if as_input else op.integers("axes")

        def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
            chosen = as_list(axes) if axes is not None else fixed
            if not chosen:
                if nothing:
                    # Only the reduction is left out: what comes before and after it stays.
                    return reducer(x.unsqueeze(0), [0], False)
                chosen = list(range(x.ndim))
            if not chosen:  # a scalar
                return reducer(x.unsqueeze(0), [0], False)
            return reducer(x, [axis_of(a, x.ndim) for a in chosen], keep)

        return run

    return build


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keep).to(x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if is_integer(x):
        return torch.mean(x.to(torch.float64), axes, keepdim=keep).to(x.dtype)
    return torch.mean(x, axes, keepdim=keep)


def _max(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, torch.amax, largest=False)


def _min(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, torch.amin, largest=True)


def _extreme(x: Tensor, axes: list[int], keep: bool, function: Kernel, largest: bool) -> Tensor:
    if any(x.shape[a] == 0 for a in axes):  # of nothing: the type's own end
        if x.dtype is torch.bool:
            end: float = largest
        elif x.dtype.is_floating_point:
            end = float("inf") if largest else float("-inf")
        else:
            end = torch.iinfo(x.dtype).max if largest else torch.iinfo(x.dtype).min
        shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
        return torch.full(shape, end, dtype=x.dtype, device=x.device)
    return function(x, axes, keepdim=keep)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keep).to(x.dtype)
    return x


def _l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(x.abs(), axes, keep)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if is_integer(x):
        return torch.linalg.vector_norm(x.to(torch.float64), 2, axes, keepdim=keep).to(x.dtype)
    return torch.linalg.vector_norm(x, 2, axes, keepdim=keep)


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.log(torch.sum(x, axes, keepdim=keep)).to(x.dtype)


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x.to(torch.float64) if is_integer(x) else x, axes, keepdim=keep).to(x.dtype)


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(x.square(), axes, keep)


def _arg(op: Op, function: Kernel) -> Kernel:
    """``ArgMax`` and ``ArgMin``: the first of equals, or the last."""
    axis, keep, last = op.integer("axis", 0), op.flag("keepdims", True), op.flag("select_last_index")

    def run(x: Tensor) -> Tensor:
        if not last:
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

    return run


def arg_max(op: Op) -> Kernel:
    """``ArgMax``."""
    return _arg(op, torch.argmax)


def arg_min(op: Op) -> Kernel:
    """``ArgMin``."""
    return _arg(op, torch.argmin)


def _cumulative(op: Op, function: Kernel, start: int) -> Kernel:
    """A running result, from either end, with the element itself or without."""
    exclusive, reverse = op.flag("exclusive"), op.flag("reverse")

    def run(x: Tensor, axis: Tensor) -> Tensor:
        along = axis_of(as_list(axis)[0], x.ndim)
        y = x.flip(along) if reverse else x
        y = function(y, along).to(x.dtype)
        if exclusive:
            first = torch.full_like(y.narrow(along, 0, 1), start)
            y = torch.cat([first, y.narrow(along, 0, y.shape[along] - 1)], along)
        return y.flip(along) if reverse else y

    return run


def cumulative_sum(op: Op) -> Kernel:
    """``CumSum``."""
    return _cumulative(op, torch.cumsum, 0)


def cumulative_product(op: Op) -> Kernel:
    """``CumProd``."""
    return _cumulative(op, torch.cumprod, 1)


OPS: dict[str, Builder] = {
    "ArgMax": arg_max,
    "ArgMin": arg_min,
    "CumProd": cumulative_product,
    "CumSum": cumulative_sum,
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(_max),
    "ReduceMean": _reduction(_mean),
    "ReduceMin": _reduction(_min),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(_sum),
    "ReduceSumSquare": _reduction(_sum_square),
}
