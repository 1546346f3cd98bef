"""Arithmetic, element by element."""

from __future__ import annotations

from functools import reduce

import onnx_ir as ir
import torch
from torch import Tensor

from modelkit.train.ops.op import Builder, Kernel, Op, is_integer, plain


def divide(op: Op) -> Kernel:
    """``Div``: integers are divided toward zero."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        return torch.div(a, b, rounding_mode="trunc") if is_integer(a) else a / b

    return run


def power(op: Op) -> Kernel:
    """``Pow``: the result has the base's type."""
    exponent = op.constant(1)
    if exponent is not None and exponent.numel() == 1 and exponent.ndim == 0:
        number = exponent.item()  # a plain number lets torch square instead of calling pow
        return lambda a, b: torch.pow(a, number).to(a.dtype)

    def run(a: Tensor, b: Tensor) -> Tensor:
        if is_integer(a) and b.dtype.is_floating_point:
            return torch.pow(a.to(torch.float64), b).to(a.dtype)
        return torch.pow(a, b).to(a.dtype)

    return run


def modulo(op: Op) -> Kernel:
    """``Mod``: the sign of the divisor, or with ``fmod`` that of the dividend."""
    return torch.fmod if op.flag("fmod") else torch.remainder


def absolute(x: Tensor) -> Tensor:
    """``Abs``, of types without a sign too."""
    return x if x.dtype is torch.uint8 else torch.abs(x)


def maximum(op: Op) -> Kernel:
    """``Max`` of any number of tensors."""
    return lambda *xs: reduce(torch.maximum, xs)


def minimum(op: Op) -> Kernel:
    """``Min`` of any number of tensors."""
    return lambda *xs: reduce(torch.minimum, xs)


def total(op: Op) -> Kernel:
    """``Sum`` of any number of tensors."""
    return lambda *xs: reduce(torch.add, xs)


def mean(op: Op) -> Kernel:
    """``Mean`` of any number of tensors."""
    return lambda *xs: reduce(torch.add, xs) / len(xs)


def clip(op: Op) -> Kernel:
    """``Clip``: bounds are attributes before opset 11, then inputs."""
    if op.opset < 11:
        low, high = op.value("min"), op.value("max")
        return lambda x: x if low is None and high is None else torch.clamp(x, low, high)
    bounds = [op.constant(i) for i in (1, 2)]
    if all(bound is not None or not op.given(i) for i, bound in enumerate(bounds, 1)):
        floor, ceiling = (None if b is None else b.item() for b in bounds)
        if floor is None and ceiling is None:
            return lambda x, *_: x
        if floor is None or ceiling is None or floor <= ceiling:
            return lambda x, *_: torch.clamp(x, floor, ceiling)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        if low is not None:
            x = torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)

    return run


def is_infinite(op: Op) -> Kernel:
    """``IsInf``, of either sign or of one."""
    negative, positive = op.flag("detect_negative", True), op.flag("detect_positive", True)
    if negative and positive:
        return torch.isinf
    if positive:
        return torch.isposinf
    return torch.isneginf if negative else lambda x: torch.zeros_like(x, dtype=torch.bool)


def shift(op: Op) -> Kernel:
    """``BitShift``: whole numbers with a sign keep it; what is shifted by its width or more is gone."""
    left = op.text("direction") == "LEFT"
    first = op.node.inputs[0]
    kind = first.dtype if first is not None and first.dtype is not None else ir.DataType.INT64
    bits = kind.bitwidth

    def run(x: Tensor, by: Tensor) -> Tensor:
        wide, by = x.to(torch.int64), by.to(torch.int64)
        if left:
            return torch.where(by >= bits, 0, wide << by.clamp(max=63)).to(x.dtype)
        if kind is ir.DataType.UINT64:  # int64 carries it: the sign must not come in from the left
            shifted = torch.where(by == 0, wide, (wide >> by.clamp(max=63)) & ~(-1 << (64 - by).clamp(0, 63)))
            return torch.where(by >= bits, 0, shifted)
        return (wide >> by.clamp(max=63)).to(x.dtype)

    return run


OPS: dict[str, Builder] = {
    "Abs": plain(absolute),
    "Acos": plain(torch.acos),
    "Acosh": plain(torch.acosh),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Asin": plain(torch.asin),
    "Asinh": plain(torch.asinh),
    "Atan": plain(torch.atan),
    "Atanh": plain(torch.atanh),
    "BitShift": shift,
    "BitwiseAnd": plain(torch.bitwise_and),
    "BitwiseNot": plain(torch.bitwise_not),
    "BitwiseOr": plain(torch.bitwise_or),
    "BitwiseXor": plain(torch.bitwise_xor),
    "Ceil": plain(torch.ceil),
    "Clip": clip,
    "Cos": plain(torch.cos),
    "Cosh": plain(torch.cosh),
    "Det": plain(torch.linalg.det),
    "Div": divide,
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "IsInf": is_infinite,
    "IsNaN": plain(torch.isnan),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "Max": maximum,
    "Mean": mean,
    "Min": minimum,
    "Mod": modulo,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "Pow": power,
    "Reciprocal": plain(torch.reciprocal),
    "Round": plain(torch.round),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Sinh": plain(torch.sinh),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": total,
    "Tan": plain(torch.tan),
    "Tanh": plain(torch.tanh),
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
}
