"""Losses between what a student says and what its teacher says: classes, softened, related or decoupled; attention.

Where nothing else is said, logits are ``[rows, classes]``, the student's first, and losses are means over the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Torch's own default for cosines; a row of equal numbers has no direction, and counts as unlike all others.
_EPSILON = 1e-8


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL divergence from the teacher's classes to the student's, both softened.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2: the softmax of the
    logits over T, times T² so that gradients keep their size whatever T is.

    Args:
        student: Logits ``[rows, classes]``.
        teacher: Logits of the same shape.
        temperature: T, above 0.

    Returns:
        Mean over the rows; 0 where both agree.
    """
    return _kl(student / temperature, teacher.to(student.dtype) / temperature) * temperature**2


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence from the teacher's classes to the student's, both logits ``[rows, classes]``."""
    own, wanted = (functional.log_softmax(logits, dim=1) for logits in (student, teacher))
    return functional.kl_div(own, wanted, reduction="batchmean", log_target=True)


def binary_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """The same as `divergence` for single scores: logits ``[rows]`` of two classes, one of which is implied."""
    wanted = torch.sigmoid(teacher.to(student.dtype) / temperature)
    entropy = functional.binary_cross_entropy_with_logits(teacher.to(student.dtype) / temperature, wanted)
    own = functional.binary_cross_entropy_with_logits(student / temperature, wanted)
    return (own - entropy) * temperature**2


def relations(
    student: Tensor, teacher: Tensor, *, temperature: float, between: float = 1.0, within: float = 1.0
) -> Tensor:
    """DIST: how unlike the relations between probabilities are, whatever their size.

    Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger Teacher" (2022), equations 6 to 10: one
    minus Pearson's correlation, of the classes of each sample (between classes) and of the samples for each class
    (within a class), times T².

    Args:
        student: Logits ``[rows, classes]``.
        teacher: Logits of the same shape.
        temperature: T, above 0.
        between: Weight of the correlations between the classes of a sample (the paper's beta).
        within: Weight of those between samples for a class (gamma); it takes more than one row.

    Returns:
        A scalar, 0 where all relations agree.
    """
    own = functional.softmax(student / temperature, dim=1)
    wanted = functional.softmax(teacher.to(own.dtype) / temperature, dim=1)
    loss = between * _uncorrelated(own, wanted)
    if len(own) > 1:
        loss = loss + within * _uncorrelated(own.T, wanted.T)
    return loss * temperature**2


def _uncorrelated(one: Tensor, other: Tensor) -> Tensor:
    """One minus Pearson's correlation of the rows of two matrices, averaged."""
    one, other = (rows - rows.mean(dim=1, keepdim=True) for rows in (one, other))
    return 1 - functional.cosine_similarity(one, other, dim=1, eps=_EPSILON).mean()


def decoupled(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    target: float = 1.0,
    others: float = 8.0,
) -> Tensor:
    """DKD: the target class against the rest, and how the rest is shared out, each with a weight of its own.

    Zhao, Cui, Song, Qiu and Liang, "Decoupled Knowledge Distillation" (2022), equation 7: alpha TCKD + beta NCKD,
    times T². In Hinton's loss the second part is weighed by how unsure the teacher is, so that a sure teacher says
    little.

    Args:
        student: Logits ``[rows, classes]``, three classes or more.
        teacher: Logits of the same shape.
        targets: The target class of each row, ``[rows]``.
        temperature: T, above 0.
        target: Weight of the target class against the rest (the paper's alpha).
        others: Weight of the rest (beta); 8 is the paper's for CIFAR-100.

    Returns:
        A scalar, 0 where both agree.
    """
    own, wanted = student / temperature, teacher.to(student.dtype) / temperature
    is_target = functional.one_hot(targets, own.shape[1]).bool()
    against = _kl(_against_rest(own, is_target), _against_rest(wanted, is_target))
    shared = _kl(_rest(own, is_target), _rest(wanted, is_target))
    return (target * against + others * shared) * temperature**2


def _against_rest(logits: Tensor, is_target: Tensor) -> Tensor:
    """Two logits for each row: the target class, and all others together."""
    return torch.stack([logits[is_target], _rest(logits, is_target).logsumexp(dim=1)], dim=1)


def _rest(logits: Tensor, is_target: Tensor) -> Tensor:
    """The logits without each row's target class."""
    return logits[~is_target].reshape(len(logits), -1)


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence from the teacher's attention to the student's, averaged over queries.

    Wang et al., "MiniLM" (2020), section 3.1. Where the two have different numbers of heads, what is compared is the
    mean over the heads.

    Args:
        student: Attention after the softmax, ``[rows, heads, queries, keys]``.
        teacher: The same of the teacher; its heads may be more or fewer.

    Returns:
        A scalar, 0 where both agree.
    """
    if student.ndim > 3 and student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(dim=1), teacher.mean(dim=1)
    own = student.reshape(-1, student.shape[-1]).clamp_min(_EPSILON)
    wanted = teacher.to(own.dtype).reshape(-1, teacher.shape[-1]).clamp_min(_EPSILON)
    return functional.kl_div(own.log(), wanted.log(), reduction="batchmean", log_target=True)
