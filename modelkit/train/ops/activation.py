"""Activation functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Op, axis_of, plain


def elu(op: Op) -> Kernel:
    """``Elu``."""
    alpha = op.number("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


def celu(op: Op) -> Kernel:
    """``Celu``."""
    alpha = op.number("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


def selu(op: Op) -> Kernel:
    """``Selu`` with any two factors."""
    alpha, gamma = op.number("alpha", 1.67326319217681884765625), op.number("gamma", 1.05070102214813232421875)
    return lambda x: gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def gelu(op: Op) -> Kernel:
    """``Gelu``, exact or by tanh."""
    approximate = op.text("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def leaky_relu(op: Op) -> Kernel:
    """``LeakyRelu``."""
    alpha = op.number("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


def prelu(op: Op) -> Kernel:
    """``PRelu``: the slope broadcasts as any operand does, from the last axis on."""
    return lambda x, slope: torch.where(x < 0, x * slope, x)


def hard_sigmoid(op: Op) -> Kernel:
    """``HardSigmoid``."""
    alpha, beta = op.number("alpha", 0.2), op.number("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


def thresholded_relu(op: Op) -> Kernel:
    """``ThresholdedRelu``."""
    alpha = op.number("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


def shrink(op: Op) -> Kernel:
    """``Shrink``."""
    bias, threshold = op.number("bias", 0.0), op.number("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        shrunk = torch.where(x < -threshold, x + bias, torch.where(x > threshold, x - bias, torch.zeros_like(x)))
        return shrunk.to(x.dtype)

    return run


def softplus(x: Tensor) -> Tensor:
    """``Softplus``: log(1 + exp(x)) at every x, where torch's own turns linear."""
    return torch.logaddexp(x, torch.zeros_like(x))


def swish(op: Op) -> Kernel:
    """``Swish``: x · sigmoid(alpha · x)."""
    alpha = op.number("alpha", 1.0)
    return lambda x: F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def swiglu(op: Op) -> Kernel:
    """``SwiGLU``: swish(a) · b."""
    gate = swish(op)
    return lambda a, b: gate(a) * b


def _along(op: Op, function: Kernel) -> Kernel:
    """A function along an axis; before opset 13 along all axes from it on, flattened."""
    if op.opset >= 13:
        axis = op.integer("axis", -1)
        return lambda x: function(x, axis)
    first = op.integer("axis", 1)

    def run(x: Tensor) -> Tensor:
        return function(x.flatten(axis_of(first, x.ndim)), -1).reshape(x.shape) if x.ndim else function(x, -1)

    return run


def softmax(op: Op) -> Kernel:
    """``Softmax``."""
    return _along(op, torch.softmax)


def log_softmax(op: Op) -> Kernel:
    """``LogSoftmax``."""
    return _along(op, torch.log_softmax)


def hardmax(op: Op) -> Kernel:
    """``Hardmax``: 1 at the first largest number, 0 elsewhere."""

    def largest(x: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)

    return _along(op, largest)


OPS: dict[str, Builder] = {
    "Celu": celu,
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": plain(F.hardswish),
    "Hardmax": hardmax,
    "LeakyRelu": leaky_relu,
    "LogSoftmax": log_softmax,
    "Mish": plain(F.mish),
    "PRelu": prelu,
    "Relu": plain(torch.relu),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": plain(torch.sigmoid),
    "Softmax": softmax,
    "Softplus": plain(softplus),
    "Softsign": plain(F.softsign),
    "SwiGLU": swiglu,
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
}
