"""How good a module is on the validation samples, which choose among the epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modelkit.measure.fidelity import FidelityMeter
from modelkit.measure.quality import QualityMeter, Task, primary
from modelkit.train.feed import Feed, loss_of
from modelkit.train.objective import Head, Objective


@dataclass(frozen=True)
class Verdict:
    """What a validation came to.

    Attributes:
        loss: Mean loss of the samples.
        quality: The metric; None where only the loss says anything.
        score: For comparing, lower is better: the metric first, then the loss; the loss alone where not all samples
            have labels.
    """

    loss: float
    quality: float | None
    score: list[float]


def metric_of(objective: Objective) -> str:
    """Name the quality that `judge` finds: "accuracy", "rmse", "agreement" or ""."""
    if objective.task is not Task.none and objective.hard is not None:
        return primary(objective.task)[0]
    return "agreement" if _followed(objective) is not None else ""


@torch.no_grad()
def judge(module: nn.Module, feed: Feed, objective: Objective) -> Verdict:
    """Measure a module on samples; it stays as it is."""
    hard, followed = objective.hard, _followed(objective)
    quality = QualityMeter(objective.task) if hard is not None else None
    fidelity = FidelityMeter([followed[0].output], axis=followed[0].axis) if followed is not None else None
    total, rows, partly = 0.0, 0, False
    was_training = module.training
    module.eval()
    try:
        for batch, fed in feed.in_order():
            loss, outputs = loss_of(module, fed, objective)
            total += loss.item() * fed.valid
            rows += fed.valid
            if quality is not None and hard is not None and batch.labels is not None:
                known = objective.labelled(torch.as_tensor(batch.labels)).numpy()
                partly = partly or not known.all()
                if known.any():
                    quality.update([_array(outputs[hard.output])[known]], batch.labels[known], int(known.sum()))
            elif fidelity is not None and followed is not None:
                head, theirs = followed
                fidelity.update([_array(fed.wanted[theirs])], [_array(outputs[head.output])], fed.valid)
    finally:
        module.train(was_training)
    loss_mean = total / rows
    if not math.isfinite(loss_mean):
        return Verdict(math.inf, None, [math.inf, math.inf])
    if quality is not None:
        name, higher_is_better = primary(objective.task)
        found = quality.result()[name]
        if partly:  # a metric of a few would choose by luck
            return Verdict(loss_mean, found, [loss_mean])
        return Verdict(loss_mean, found, [-found if higher_is_better else found, loss_mean])
    return Verdict(loss_mean, None if fidelity is None else fidelity.result().get("top1_agreement"), [loss_mean])


def _followed(objective: Objective) -> tuple[Head, str] | None:
    """The first output with class scores that follows the teacher, and the teacher's."""
    return next(((head, other) for head, other in objective.soft if head.kind in ("classes", "scores")), None)


def _array(output: Tensor) -> np.ndarray:
    return output.float().cpu().numpy()
