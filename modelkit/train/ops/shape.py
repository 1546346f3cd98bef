"""Shapes: what changes them, reads them, or is made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from modelkit.graph.tensors import node_constant
from modelkit.train.ops.dtypes import carrier, tensor_of
from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported, as_list, axis_of, plain


def identity(x: Tensor) -> Tensor:
    """``Identity``."""
    return x


def constant(op: Op) -> Kernel:
    """``Constant`` with any of its attributes that torch can hold."""
    stored = node_constant(op.node)
    if stored is None:
        raise Unsupported("it holds text or a sparse tensor")
    value = tensor_of(stored.numpy(), stored.dtype, op.widen)
    return lambda: value


def constant_of_shape(op: Op) -> Kernel:
    """``ConstantOfShape``."""
    stored = op.value("value")
    value = torch.zeros(1) if stored is None else tensor_of(stored.numpy(), stored.dtype, op.widen)
    number, kind = value.reshape(-1)[0].item(), value.dtype
    return lambda shape: torch.full(as_list(shape), number, dtype=kind, device=shape.device)


def shape_of(op: Op) -> Kernel:
    """``Shape``, or a part of it."""
    start, end = op.integer("start", 0), op.value("end")
    return lambda x: torch.tensor(list(x.shape)[slice(start, end)], dtype=torch.int64)


def size_of(x: Tensor) -> Tensor:
    """``Size``."""
    return torch.tensor(x.numel(), dtype=torch.int64)


def reshape(op: Op) -> Kernel:
    """``Reshape``: 0 keeps an axis, unless ``allowzero``; -1 is what remains."""
    allow_zero = op.flag("allowzero")

    def run(x: Tensor, shape: Tensor) -> Tensor:
        target = as_list(shape)
        if not allow_zero:
            target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
        if -1 in target and 0 in target:
            rest = math.prod(n for n in target if n != -1)
            target[target.index(-1)] = x.numel() // rest if rest else 0
        return x.reshape(target)

    return run


def flatten(op: Op) -> Kernel:
    """``Flatten`` to two axes."""
    axis = op.integer("axis", 1)

    def run(x: Tensor) -> Tensor:
        first = axis_of(axis, x.ndim)
        return x.reshape(math.prod(x.shape[:first]), math.prod(x.shape[first:]))

    return run


def transpose(op: Op) -> Kernel:
    """``Transpose``; without an order, all axes are reversed."""
    order = op.integers("perm")
    return lambda x: x.permute(order if order is not None else list(range(x.ndim))[::-1])


def _axes(op: Op) -> list[int] | None:
    """Axes from the attribute (before opset 13)."""
    return op.integers("axes") if op.opset < 13 else None


def squeeze(op: Op) -> Kernel:
    """``Squeeze``: without axes, all of length 1."""
    fixed = _axes(op)

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = as_list(axes) if axes is not None else fixed
        if chosen is None:
            return x.squeeze()
        for axis in chosen:
            if x.shape[axis] != 1:
                raise ValueError(f"axis {axis} has length {x.shape[axis]} and cannot be squeezed")
        return x.squeeze(tuple(chosen))

    return run


def unsqueeze(op: Op) -> Kernel:
    """``Unsqueeze``: the axes count in the result."""
    fixed = _axes(op)

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = as_list(axes) if axes is not None else fixed or []
        rank = x.ndim + len(chosen)
        for axis in sorted(axis_of(a, rank) for a in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


def concat(op: Op) -> Kernel:
    """``Concat``."""
    axis = op.integer("axis", 1)
    return lambda *xs: torch.cat(xs, axis)


def split(op: Op) -> Kernel:
    """``Split`` into given lengths, or into equal ones, the last being shorter."""
    axis, fixed = op.integer("axis", 0), op.integers("split")
    parts = op.integer("num_outputs", len(op.node.outputs))

    def run(x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        given = as_list(lengths) if lengths is not None else fixed
        if given is None:
            each = -(-x.shape[axis] // parts)
            given = [min(each, max(0, x.shape[axis] - i * each)) for i in range(parts)]
        return torch.split(x, given, axis)

    return run


def slice_(op: Op) -> Kernel:
    """``Slice``: bounds are attributes before opset 10, then inputs; steps may be negative."""
    starts, ends, axes = op.integers("starts"), op.integers("ends"), op.integers("axes")
    if op.opset < 10 and starts is not None and ends is not None:
        return lambda x: _cut(x, starts, ends, axes, None)

    def run(
        x: Tensor, first: Tensor, last: Tensor, along: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        listed = [None if t is None else as_list(t) for t in (along, steps)]
        return _cut(x, as_list(first), as_list(last), *listed)

    return run


def _cut(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> Tensor:
    cuts = [slice(None)] * x.ndim
    backwards: list[int] = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axis_of(axes[i] if axes is not None else i, x.ndim)
        taken = _taken(start, end, steps[i] if steps is not None else 1, x.shape[axis])
        if taken.step < 0:  # torch has no negative steps: take the same elements forwards, then flip
            taken = taken[::-1]
            backwards.append(axis)
        cuts[axis] = slice(taken.start, taken.stop, taken.step) if taken else slice(0, 0)
    y = x[tuple(cuts)]
    return y.flip(backwards) if backwards else y


def _taken(start: int, end: int, step: int, length: int) -> range:
    """The elements that a slice takes; bounds beyond the ends are drawn to them, as the specification says."""
    start, end = (n + length if n < 0 else n for n in (start, end))
    if step > 0:
        return range(min(max(start, 0), length), min(max(end, 0), length), step)
    return range(min(max(start, 0), length - 1), min(max(end, -1), length - 1), step)


def expand(op: Op) -> Kernel:
    """``Expand``: both shapes broadcast against each other."""

    def run(x: Tensor, shape: Tensor) -> Tensor:
        return x.expand(torch.broadcast_shapes(x.shape, as_list(shape)))

    return run


def tile(op: Op) -> Kernel:
    """``Tile``."""
    return lambda x, repeats: x.repeat(as_list(repeats))


def range_(op: Op) -> Kernel:
    """``Range``."""

    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        first, last, step = start.item(), limit.item(), delta.item()
        count = max(0, math.ceil((last - first) / step))
        return torch.arange(count, device=start.device).to(start.dtype) * delta + start

    return run


def depth_to_space(op: Op) -> Kernel:
    """``DepthToSpace``: depth-column-row order, or column-row-depth (CRD)."""
    block, mode = op.integer("blocksize"), op.text("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if mode == "CRD":
            y = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // block**2, h * block, w * block)

    return run


def space_to_depth(op: Op) -> Kernel:
    """``SpaceToDepth``: the inverse of ``DepthToSpace``, in either order."""
    block, mode = op.integer("blocksize"), op.text("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // block, block, w // block, block)
        y = y.permute(0, 1, 3, 5, 2, 4) if mode == "CRD" else y.permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * block**2, h // block, w // block)

    return run


def eye_like(op: Op) -> Kernel:
    """``EyeLike``: ones on a diagonal."""
    offset = op.integer("k", 0)
    kind = carrier(ir.DataType(op.integer("dtype")), op.widen) if op.has("dtype") else None

    def run(x: Tensor) -> Tensor:
        return torch.ones_like(x, dtype=kind).triu(offset).tril(offset)

    return run


def triangle(op: Op) -> Kernel:
    """``Trilu``: the upper or lower triangle."""
    cut = torch.triu if op.flag("upper", True) else torch.tril
    return lambda x, k=None: cut(x, 0 if k is None else int(k))


OPS: dict[str, Builder] = {
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "EyeLike": eye_like,
    "Flatten": flatten,
    "Identity": plain(identity),
    "Range": range_,
    "Reshape": reshape,
    "Shape": shape_of,
    "Size": plain(size_of),
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
}
