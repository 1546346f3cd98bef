"""Quantized arithmetic. Rounding has no gradient, unless the graph is compiled with one that passes through it."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from modelkit.train.ops.conv import conv
from modelkit.train.ops.dtypes import NARROW, carrier, fit
from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported
from modelkit.train.rounding import round_through, spread

RANGES = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
    **NARROW,
}


def quantize(op: Op) -> Kernel:
    """``QuantizeLinear``; with a gradient that passes through, its integers stay floats."""
    axis, block = op.integer("axis", 1), op.integer("block_size", 0)
    target, saturate = _target(op), op.flag("saturate", True)
    shift = _fixed_zero(op)

    def through(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        low, high = RANGES[target]
        if shift is not None:
            counted = round_through(x, spread(scale, x, axis, block), low - shift, high - shift)
            return counted + shift if shift else counted
        zeros = 0 if zero is None else spread(zero, x, axis, block).to(torch.float32)
        return round_through(x, spread(scale, x, axis, block), low - zeros, high - zeros) + zeros

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        scaled = x.to(torch.float32) / spread(scale, x, axis, block).to(torch.float32)
        if target not in RANGES:
            return fit(scaled, target, op.widen, saturate)
        shift = 0 if zero is None else spread(zero, x, axis, block).to(torch.float32)
        return (scaled.round() + shift).clamp(*RANGES[target]).to(carrier(target, op.widen))

    return through if op.straight_through and target in RANGES else run


def _target(op: Op) -> ir.DataType:
    """The type to quantize to: the zero point's, the attribute's, or uint8."""
    zero = op.node.inputs[2] if op.given(2) else None
    if zero is not None and zero.dtype is not None:
        target = zero.dtype
    else:
        target = ir.DataType(op.integer("output_dtype", 0) or ir.DataType.UINT8)
    carrier(target, op.widen)
    return target


def _fixed_zero(op: Op) -> int | None:
    """The one zero point of a node as a number; None where it is computed, or differs from slice to slice."""
    if not op.given(2):
        return 0
    zero = op.constant(2)
    numbers = None if zero is None else torch.unique(zero)
    return None if numbers is None or numbers.numel() != 1 else int(numbers)


def dequantize(op: Op) -> Kernel:
    """``DequantizeLinear``: (x - zero) · scale."""
    axis, block = op.integer("axis", 1), op.integer("block_size", 0)
    wished = ir.DataType(op.integer("output_dtype", 0))

    symmetric = _fixed_zero(op) == 0

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        wide = x.to(torch.float32)
        if zero is not None and not symmetric:
            wide = wide - spread(zero, x, axis, block).to(torch.float32)
        kind = carrier(wished, op.widen) if wished else scale.dtype
        return (wide * spread(scale, x, axis, block)).to(kind)

    return run


def dynamic_quantize(op: Op) -> Kernel:
    """``DynamicQuantizeLinear`` to uint8, with the range stretched to hold 0."""

    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = torch.clamp(x.min(), max=0.0), torch.clamp(x.max(), min=0.0)
        scale = (high - low) / 255.0
        safe = torch.where(scale == 0, torch.ones_like(scale), scale)
        zero = torch.clamp(torch.round(-low / safe), 0, 255)
        return torch.clamp(torch.round(x / safe) + zero, 0, 255).to(torch.uint8), scale, zero.to(torch.uint8)

    return run


def _requantize(real: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    kind = torch.iinfo(zero.dtype)
    return torch.clamp(torch.round(real / scale) + zero.to(real.dtype), kind.min, kind.max).to(zero.dtype)


def linear_matmul(op: Op) -> Kernel:
    """``QLinearMatMul``."""
    for index in (2, 5, 7):
        zero = op.node.inputs[index]
        if zero is not None and zero.dtype is not None and zero.dtype not in (ir.DataType.INT8, ir.DataType.UINT8):
            raise Unsupported("it multiplies numbers of other than 8 bits")

    def run(
        a: Tensor, a_s: Tensor, a_z: Tensor, b: Tensor, b_s: Tensor, b_z: Tensor, y_s: Tensor, y_z: Tensor
    ) -> Tensor:
        product = (a.to(torch.float64) - _rows(a_z)) @ (b.to(torch.float64) - b_z.to(torch.float64))
        return _requantize(product * _rows(a_s) * b_s.to(torch.float64), y_s.to(torch.float64), y_z)

    return run


def _rows(x: Tensor) -> Tensor:
    """A value for each row of the left matrix stands in a column."""
    return (x.unsqueeze(-1) if x.ndim == 1 and x.numel() > 1 else x).to(torch.float64)


def linear_conv(op: Op) -> Kernel:
    """``QLinearConv``."""
    float_conv = conv(op)

    def run(
        x: Tensor, x_s: Tensor, x_z: Tensor, w: Tensor, w_s: Tensor, w_z: Tensor, y_s: Tensor, y_z: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        shape = [-1] + [1] * (w.ndim - 1)
        left = x.to(torch.float64) - x_z.to(torch.float64)
        right = w.to(torch.float64) - w_z.to(torch.float64).reshape(shape)
        total = float_conv(left, right, None if bias is None else bias.to(torch.float64))
        scale = x_s.to(torch.float64) * w_s.to(torch.float64).reshape(-1, *[1] * (w.ndim - 2))
        return _requantize(total * scale, y_s.to(torch.float64), y_z)

    return run


OPS: dict[str, Builder] = {
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "QLinearConv": linear_conv,
    "QLinearMatMul": linear_matmul,
    "QuantizeLinear": quantize,
}
