"""Losses on tensors: cross-entropy, binary cross-entropy, squared and Huber error, cosine distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from modelkit.data.join import IGNORED as IGNORED

# Probabilities below this have no logarithm worth a gradient; its reciprocal is still a float32.
_SMALLEST = 1e-30


def class_rows(output: Tensor, axis: int, *, probabilities: bool) -> Tensor:
    """Bring class scores to rows of logits.

    Args:
        output: Scores of any shape.
        axis: Axis of the classes.
        probabilities: Whether the scores are the result of a softmax; their logarithms are logits too.

    Returns:
        Tensor ``[rows, classes]``, float32 or wider.
    """
    rows = _wide(output.movedim(axis, -1).reshape(-1, output.shape[axis]))
    return rows.clamp_min(_SMALLEST).log() if probabilities else rows


def single_logits(output: Tensor, *, probabilities: bool) -> Tensor:
    """Bring single scores to logits of any shape ``[rows]``: log(p / (1 - p)) where they are probabilities."""
    flat = _wide(output.reshape(-1))
    # In float32 1 - p is 0 from p = 1 - 2**-25 on; this keeps both logarithms finite.
    return torch.logit(flat, eps=1e-7) if probabilities else flat


def cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy.

    Args:
        logits: ``[rows, classes]``.
        targets: Class ids ``[rows]``; rows with `IGNORED` do not count.
        smoothing: Share of each label spread over all classes, 0 to 1 (Szegedy et al., 2016).

    Returns:
        A scalar; 0 where no row counts.
    """
    kept = targets != IGNORED
    total = functional.cross_entropy(
        logits, targets, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
    )
    return total / kept.sum().clamp_min(1)


def binary(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits and targets of 0 to 1, both ``[rows]``."""
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def squared(output: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of two tensors with the same number of elements."""
    flat = _wide(output.reshape(-1))
    return functional.mse_loss(flat, targets.reshape(-1).to(flat.dtype))


def huber(output: Tensor, targets: Tensor, *, delta: float) -> Tensor:
    """Mean Huber error: squared up to `delta`, linear beyond; two tensors with the same number of elements."""
    flat = _wide(output.reshape(-1))
    return functional.huber_loss(flat, targets.reshape(-1).to(flat.dtype), delta=delta)


def cosine(output: Tensor, targets: Tensor) -> Tensor:
    """One minus the cosine of the angle between each sample and its target, averaged; both ``[rows, ...]``."""
    own = _wide(output.reshape(len(output), -1))
    return 1 - functional.cosine_similarity(own, targets.reshape(len(targets), -1).to(own.dtype), dim=1).mean()


def _wide(tensor: Tensor) -> Tensor:
    """Losses of half-precision outputs are computed in float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
