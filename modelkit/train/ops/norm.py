"""Normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Moded, Op, axis_of


def batch_norm(op: Op) -> Moded:
    """``BatchNormalization``: in training with the batch's statistics, which update the running ones.

    ONNX's momentum is the share that the old statistics keep, torch's what the new ones get. A node
    that was exported in training mode also gives the new statistics out.
    """
    epsilon, momentum = op.number("epsilon", 1e-5), op.number("momentum", 0.9)
    exported_training = op.flag("training_mode")
    statistics = (op.node.inputs[3], op.node.inputs[4])
    kept = all(v is not None and v.is_initializer() for v in statistics)

    def run(training: bool, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> object:
        if exported_training:
            return _in_training(x, scale, bias, mean, var)
        scale, bias = scale.to(x.dtype), bias.to(x.dtype)
        if kept:
            return F.batch_norm(x, mean, var, scale, bias, training, 1 - momentum, epsilon)
        if training:  # computed statistics are nobody's running ones: there is nothing to update
            return F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
        shape = [1, -1] + [1] * (x.ndim - 2)
        scale = scale * torch.rsqrt(var + epsilon)
        return (x - mean.reshape(shape)) * scale.reshape(shape) + bias.reshape(shape)

    def _in_training(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, ...]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        new_mean, new_var = x.mean(axes), x.var(axes, unbiased=False)
        y = F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
        return y, mean * momentum + new_mean * (1 - momentum), var * momentum + new_var * (1 - momentum)

    return Moded(run)


def layer_norm(op: Op) -> Kernel:
    """``LayerNormalization`` over all axes from ``axis`` on."""
    first, epsilon = op.integer("axis", -1), op.number("epsilon", 1e-5)
    statistics = op.wanted(1) or op.wanted(2)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> object:
        axes = list(range(axis_of(first, x.ndim), x.ndim))
        shape = [x.shape[a] for a in axes]
        if not statistics and list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
            return F.layer_norm(x, shape, scale, bias, epsilon)
        mean = x.mean(axes, keepdim=True)
        inverse = torch.rsqrt(x.var(axes, unbiased=False, keepdim=True) + epsilon)
        y = (x - mean) * inverse * scale
        return (y if bias is None else y + bias), mean, inverse

    return run


def rms_norm(op: Op) -> Kernel:
    """``RMSNormalization`` over all axes from ``axis`` on."""
    first, epsilon = op.integer("axis", -1), op.number("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = list(range(axis_of(first, x.ndim), x.ndim))
        wide = x.to(torch.float32) if x.dtype.itemsize < 4 else x
        return (wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)).to(x.dtype) * scale

    return run


def group_norm(op: Op) -> Kernel:
    """``GroupNormalization``: one scale for each group (opset 18), or for each channel (21)."""
    groups, epsilon = op.integer("num_groups"), op.number("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if op.opset < 21 and scale.shape[0] != x.shape[1]:
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return F.group_norm(x, groups, scale, bias, epsilon)

    return run


def instance_norm(op: Op) -> Kernel:
    """``InstanceNormalization``."""
    epsilon = op.number("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        axes = list(range(2, x.ndim))
        shape = [-1] + [1] * len(axes)
        centred = x - x.mean(axes, keepdim=True)
        inverse = torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
        return centred * inverse * scale.reshape(shape) + bias.reshape(shape)

    return run


def local_response(op: Op) -> Kernel:
    """``LRN`` across channels."""
    size, alpha = op.integer("size"), op.number("alpha", 1e-4)
    beta, bias = op.number("beta", 0.75), op.number("bias", 1.0)

    def run(x: Tensor) -> Tensor:
        before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
        square = (
            F.pad(x.square().flatten(2), [0, 0, before, after]) if x.ndim > 2 else F.pad(x.square(), [before, after])
        )
        window = square.unfold(1, size, 1).sum(-1).reshape(x.shape)
        return x / (bias + alpha / size * window) ** beta

    return run


def lp_norm(op: Op) -> Kernel:
    """``LpNormalization``: where the norm is 0, so is the result."""
    axis, p = op.integer("axis", -1), op.integer("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
        return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1, norm))

    return run


def mean_variance_norm(op: Op) -> Kernel:
    """``MeanVarianceNormalization``, with the specification's epsilon."""
    axes = op.integers("axes") or [0, 2, 3]

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run


OPS: dict[str, Builder] = {
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "RMSNormalization": rms_norm,
}
