"""Rounding that gradients pass through, as if it were not there: the straight-through estimator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
        steps = x / step
        ctx.save_for_backward(steps, step)
        ctx.limits = low, high
        return steps.round().clamp_(low, high)  # type: ignore[arg-type] # both numbers or both tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        steps, step = ctx.saved_tensors
        low, high = ctx.limits
        (given,) = gradients
        if isinstance(low, Tensor):
            inside = given * ((steps > low) & (steps < high))
        else:
            inside = torch.ops.aten.hardtanh_backward(given, steps, low, high)
        of_x = inside / step
        if not ctx.needs_input_grad[1]:
            return of_x, None, None, None
        if step.numel() == 1:
            of_step = -torch.dot(of_x.reshape(-1), steps.reshape(-1)).reshape(step.shape)
        else:
            of_step = -(of_x * steps).sum_to_size(step.shape)
        return of_x, of_step, None, None


def round_through(x: Tensor, step: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Count numbers in steps: ``x / step``, rounded to the nearest integer, ties to even, and clipped.

    Its gradient is that of ``x / step`` strictly between the limits, as if nothing were rounded, and 0 beyond
    (Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013). With it
    ``step * round_through(x, step, low, high)`` has the gradients of Esser et al., "Learned Step Size Quantization"
    (2020), equations 3 and 5, for x and for the step.

    Args:
        x: Floats of any shape.
        step: Above 0; broadcasts against ``x``.
        low: Smallest integer, a number or a tensor that broadcasts against ``x``.
        high: Largest integer, likewise.

    Returns:
        Integers in the type and shape of ``x``.
    """
    result: Tensor = _Steps.apply(x, step, low, high)
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
