"""Pooling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Op, as_list, plain
from modelkit.train.ops.padding import Pairs, WindowPads, pad_constant

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Windows:
    """The geometry of a pool: where its windows lie on an input.

    Args:
        op: The pooling node.
    """

    def __init__(self, op: Op) -> None:
        self._pads = WindowPads(op)
        self.kernel = op.integers("kernel_shape") or []
        rank = len(self.kernel)
        self.strides = op.integers("strides") or [1] * rank
        self.dilations = op.integers("dilations") or [1] * rank
        self._ceil = op.flag("ceil_mode")

    def pads(self, x: Tensor) -> tuple[Pairs, list[int]]:
        """Return the pads as the node means them, and how much more at each end ceil mode needs."""
        sizes = x.shape[2:]
        pads = self._pads(sizes, self.kernel, self.strides, self.dilations)
        more = [0] * len(pads)
        if self._ceil and self._pads.auto == "NOTSET":
            axes = zip(sizes, pads, self.kernel, self.strides, self.dilations, strict=True)
            for i, (size, (before, after), kernel, stride, dilation) in enumerate(axes):
                room = size + before + after - (kernel - 1) * dilation - 1
                out = math.ceil(room / stride) + 1
                if (out - 1) * stride >= size + before:  # a window that begins behind the input is left out
                    out -= 1
                more[i] = max(0, (out - 1) * stride - room)
        return pads, more

    def wide(self, x: Tensor) -> Pairs:
        """Return the pads together with what ceil mode needs."""
        return [(before, after + more) for (before, after), more in zip(*self.pads(x), strict=True)]

    def take(self, x: Tensor) -> Tensor:
        """Cut a padded input into windows: [N, C, out..., kernel elements]."""
        for axis, (kernel, stride, dilation) in enumerate(
            zip(self.kernel, self.strides, self.dilations, strict=True)
        ):
            x = x.unfold(axis + 2, (kernel - 1) * dilation + 1, stride)
            x = x[..., ::dilation]
        return x.flatten(-len(self.kernel))


def max_pool(op: Op) -> Kernel:
    """``MaxPool``, with indices into the whole input where they are wanted."""
    windows = _Windows(op)
    with_indices, column_major = op.wanted(1), op.flag("storage_order")

    def run(x: Tensor) -> object:
        wide = windows.wide(x)
        rank = len(windows.kernel)
        least = float("-inf") if x.dtype.is_floating_point else torch.iinfo(x.dtype).min
        if not with_indices and rank in _MAX and x.dtype.is_floating_point:
            easy = all(b == a and 2 * b <= k for (b, a), k in zip(wide, windows.kernel, strict=True))
            padding = [before for before, _ in wide] if easy else 0
            padded = x if easy else pad_constant(x, wide, least)
            return _MAX[rank](padded, windows.kernel, windows.strides, padding, windows.dilations)
        y, chosen = windows.take(pad_constant(x, wide, least)).max(-1)
        return (y, _flat_index(x, y, chosen, wide)) if with_indices else y

    def _flat_index(x: Tensor, y: Tensor, chosen: Tensor, pads: Pairs) -> Tensor:
        """Turn positions inside windows into positions inside the whole tensor."""
        offsets = torch.tensor(
            list(itertools.product(*(range(k) for k in windows.kernel))), device=x.device
        ) * torch.tensor(windows.dilations, device=x.device)
        axes = []
        for axis, (before, _) in enumerate(pads):
            shape = [1] * y.ndim
            shape[axis + 2] = -1
            start = torch.arange(y.shape[axis + 2], device=x.device) * windows.strides[axis] - before
            axes.append(start.reshape(shape) + offsets[:, axis][chosen])
        sizes = list(x.shape[2:])
        order = list(range(len(axes)))
        flat = torch.zeros_like(chosen)
        for axis in order[::-1] if column_major else order:
            flat = flat * sizes[axis] + axes[axis]
        planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(axes))
        return flat + planes * math.prod(sizes)

    return run


def average_pool(op: Op) -> Kernel:
    """``AveragePool``: by the number of elements that count, padding among them or not."""
    windows = _Windows(op)
    count_padding = op.flag("count_include_pad")

    def run(x: Tensor) -> Tensor:
        pads, more = windows.pads(x)
        wide = [(b, a + m) for (b, a), m in zip(pads, more, strict=True)]
        total = window_sum(pad_constant(x, wide))
        if not any(any(p) for p in wide):
            return total / math.prod(windows.kernel)
        ones = x.new_ones(1, 1, *x.shape[2:])
        # What ceil mode adds behind the padding never counts.
        ones = pad_constant(pad_constant(ones, pads, float(count_padding)), [(0, m) for m in more])
        return total / window_sum(ones)

    def window_sum(x: Tensor) -> Tensor:
        rank = len(windows.kernel)
        if rank in _AVERAGE and not any(d > 1 for d in windows.dilations) and x.dtype.is_floating_point:
            return _AVERAGE[rank](x, windows.kernel, windows.strides) * math.prod(windows.kernel)
        return windows.take(x).sum(-1)

    return run


def lp_pool(op: Op) -> Kernel:
    """``LpPool``."""
    windows, p = _Windows(op), op.integer("p", 2)

    def run(x: Tensor) -> Tensor:
        wide = windows.wide(x)
        return torch.linalg.vector_norm(windows.take(pad_constant(x, wide)), p, dim=-1)

    return run


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def global_average_pool(x: Tensor) -> Tensor:
    """``GlobalAveragePool``."""
    return x.mean(_spatial(x), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    """``GlobalMaxPool``."""
    return x.amax(_spatial(x), keepdim=True)


def global_lp_pool(op: Op) -> Kernel:
    """``GlobalLpPool``."""
    p = op.integer("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, dim=_spatial(x), keepdim=True)


def max_unpool(op: Op) -> Kernel:
    """``MaxUnpool``: puts what a ``MaxPool`` took back to where its indices say."""
    kernel = op.integers("kernel_shape") or []
    strides = op.integers("strides") or [1] * len(kernel)
    pads = op.integers("pads") or [0] * (2 * len(kernel))

    def run(x: Tensor, index: Tensor, shape: Tensor | None = None) -> Tensor:
        rank = len(kernel)
        size: Sequence[int] = [
            (n - 1) * s - pads[i] - pads[i + rank] + k
            for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))
        ]
        if shape is None:
            return _scatter(x, index, [*x.shape[:2], *size])
        target = as_list(shape)
        if math.prod(target) == math.prod([*x.shape[:2], *size]):
            return _scatter(x, index, target)
        # The indices count in the smallest tensor that the pool can have come from.
        y = _scatter(x, index, [*x.shape[:2], *size])
        return pad_constant(y, [(0, t - n) for t, n in zip(target[2:], size, strict=True)])

    return run


def _scatter(x: Tensor, index: Tensor, shape: Sequence[int]) -> Tensor:
    flat = x.new_zeros(math.prod(shape))
    return flat.scatter(0, index.reshape(-1), x.reshape(-1)).reshape(list(shape))


OPS: dict[str, Builder] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": plain(global_average_pool),
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": plain(global_max_pool),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
}
