"""Rounding that gradients pass through, as if it were not there: the straight-through estimator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward((x > low) & (x < high))
        return x.round().clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


def round_through(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Round to the nearest integer, ties to even, and clip.

    Its gradient is 1 strictly between the limits and 0 beyond (Bengio, Léonard and Courville, "Estimating or
    Propagating Gradients Through Stochastic Neurons", 2013). With it ``s * round_through(x / s, low, high)`` has the
    gradients of Esser et al., "Learned Step Size Quantization" (2020), equations 3 and 5, for x and for s.

    Args:
        x: Numbers in units of a step, float, any shape.
        low: Smallest integer; broadcasts against ``x``.
        high: Largest integer, likewise.

    Returns:
        Integers in the type and shape of ``x``.
    """
    limits = (torch.as_tensor(limit, dtype=x.dtype, device=x.device) for limit in (low, high))
    result: Tensor = _RoundThrough.apply(x, *limits)
    return result


def spread(scale: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """Bring scales or zero points to a shape that broadcasts against what they scale.

    Args:
        scale: One number, ``[C]`` for the C slices of an axis, or one number for each block.
        x: What is scaled.
        axis: The axis of the slices or blocks; negative ones count from the end.
        block: Length of a block, as the attribute ``block_size`` gives it; 0 for none.
    """
    if scale.numel() == 1 and scale.ndim <= 1:
        return scale.reshape(())
    along = axis + x.ndim if axis < 0 else axis
    if scale.ndim == 1 and not block:
        shape = [1] * x.ndim
        shape[along] = -1
        return scale.reshape(shape)
    size = block or x.shape[along] // scale.shape[along]
    return scale.repeat_interleave(size, along).narrow(along, 0, x.shape[along])
