"""Losses that a graph can hold itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Op


def negative_log_likelihood(op: Op) -> Kernel:
    """``NegativeLogLikelihoodLoss`` of log-probabilities [N, C, ...] and labels [N, ...]."""
    reduction, ignored = op.text("reduction", "mean"), op.value("ignore_index")

    def run(x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        labels = target.to(torch.int64)
        # torch wants a label in range unless it is the ignored one; no label is -2 ** 31.
        return F.nll_loss(
            x, labels, weight, ignore_index=-(2**31) if ignored is None else ignored, reduction=reduction
        )

    return run


def softmax_cross_entropy(op: Op) -> Kernel:
    """``SoftmaxCrossEntropyLoss``, which also gives the log-probabilities."""
    loss = negative_log_likelihood(op)

    def run(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logarithm = torch.log_softmax(scores, 1)
        return loss(logarithm, target, weight), logarithm

    return run


OPS: dict[str, Builder] = {
    "NegativeLogLikelihoodLoss": negative_log_likelihood,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
}
