"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Op, plain


def gemm(op: Op) -> Kernel:
    """``Gemm``: alpha · A′ · B′ + beta · C."""
    alpha, beta = op.number("alpha", 1.0), op.number("beta", 1.0)
    flip_a, flip_b = op.flag("transA"), op.flag("transB")

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        if flip_a:
            a = a.t()
        if alpha == beta == 1.0 and c is not None and c.ndim == 1:
            return F.linear(a, b if flip_b else b.t(), c) if c.shape[0] == b.shape[not flip_b] else _sum(a, b, c)
        return _sum(a, b, c)

    def _sum(a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
        product = a @ (b.t() if flip_b else b)
        if alpha != 1.0:
            product = (product * alpha).to(a.dtype)
        if c is None:
            return product
        return product + (c if beta == 1.0 else (c * beta).to(c.dtype))

    return run


def einsum(op: Op) -> Kernel:
    """``Einsum``."""
    equation = op.text("equation").replace(" ", "")
    return lambda *xs: torch.einsum(equation, *xs)


def integer_matmul(op: Op) -> Kernel:
    """``MatMulInteger``: (A - a0) · (B - b0), A's zero point for each row or for all, B's for each column."""

    def run(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
        left, right = a.to(torch.float64), b.to(torch.float64)
        if a_zero is not None:
            left = left - (a_zero if a_zero.ndim != 1 or a_zero.numel() == 1 else a_zero.unsqueeze(-1))
        if b_zero is not None:
            right = right - b_zero
        return (left @ right).to(torch.int32)  # doubles are exact here, and torch multiplies them fast

    return run


OPS: dict[str, Builder] = {
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": plain(torch.matmul),
    "MatMulInteger": integer_matmul,
}
