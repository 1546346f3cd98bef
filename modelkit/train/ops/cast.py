"""Conversions between element types."""

from __future__ import annotations

import onnx_ir as ir
from torch import Tensor

from modelkit.train.ops.dtypes import carrier, fit
from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported


def cast(op: Op) -> Kernel:
    """``Cast``."""
    target = ir.DataType(op.integer("to"))
    return _conversion(op, target)


def cast_like(op: Op) -> Kernel:
    """``CastLike``: to the second input's type."""
    like = op.node.inputs[1]
    if like is None or like.dtype is None:
        return lambda x, other: x.to(other.dtype)
    convert = _conversion(op, like.dtype)
    return lambda x, _: convert(x)


def _conversion(op: Op, target: ir.DataType) -> Kernel:
    saturate, rounding = op.flag("saturate", True), op.text("round_mode", "up")
    carrier(target, op.widen)  # refuses what cannot be carried
    return lambda x: fit(x, target, op.widen, saturate, rounding)


def bit_cast(op: Op) -> Kernel:
    """``BitCast``: the same bits as another type."""
    target, first = ir.DataType(op.integer("to")), op.node.inputs[0]
    kind = carrier(target, False)
    source = carrier(first.dtype, False) if first is not None and first.dtype is not None else kind
    if kind.itemsize * 8 != target.bitwidth or source.itemsize != kind.itemsize:
        raise Unsupported(f"torch does not hold {target.name.lower()} as such")
    if op.widen and kind.itemsize == 2:
        raise Unsupported("its bits are those of a type that is computed in float32")

    def run(x: Tensor) -> Tensor:
        if x.dtype.itemsize != kind.itemsize:
            raise ValueError(f"{x.dtype} has other bits than {kind}")
        return x.view(kind)

    return run


OPS: dict[str, Builder] = {"BitCast": bit_cast, "Cast": cast, "CastLike": cast_like}
