"""How good a module is on the validation samples, which choose among the epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modelkit.measure import scores
from modelkit.measure.quality import QualityMeter, Task, primary
from modelkit.train.feed import Feed, loss_of
from modelkit.train.objective import Objective


@dataclass(frozen=True)
class Verdict:
    """What a validation came to.

    Attributes:
        loss: Mean loss of the samples.
        quality: The metric; None where only the loss says anything.
        score: For comparing, lower is better: the metric first, then the loss; without labels the loss alone.
    """

    loss: float
    quality: float | None
    score: list[float]


def metric_of(objective: Objective) -> str:
    """Name the quality that `judge` finds: "accuracy", "rmse", "agreement" or ""."""
    if objective.task is not Task.none and objective.hard is not None:
        return primary(objective.task)[0]
    return "agreement" if _agreement_head(objective) is not None else ""


@torch.no_grad()
def judge(module: nn.Module, feed: Feed, objective: Objective) -> Verdict:
    """Measure a module on samples; it stays as it is."""
    metric = metric_of(objective)
    meter = QualityMeter(objective.task) if objective.hard is not None else None
    total, same, compared, rows = 0.0, 0, 0, 0
    was_training = module.training
    module.eval()
    try:
        for batch, fed in feed.in_order():
            loss, outputs = loss_of(module, fed, objective)
            total += loss.item() * fed.valid
            rows += fed.valid
            if meter is not None and objective.hard is not None and batch.labels is not None:
                output = outputs[objective.hard.output].float().cpu().numpy()
                meter.update([output], batch.labels, fed.valid)
            elif metric:
                found, count = _agreement(outputs, fed.wanted, objective)
                same, compared = same + found, compared + count
    finally:
        module.train(was_training)
    loss_mean = total / rows
    if not math.isfinite(loss_mean):
        return Verdict(math.inf, None, [math.inf, math.inf])
    if meter is not None:
        quality = meter.result()[metric]
        return Verdict(loss_mean, quality, [quality if metric == "rmse" else -quality, loss_mean])
    return Verdict(loss_mean, same / compared if compared else None, [loss_mean])


def _agreement_head(objective: Objective) -> tuple[str, str, int] | None:
    for head, other in objective.soft:
        if head.kind in ("classes", "scores"):
            return head.output, other, head.axis
    return None


def _agreement(outputs: dict[str, Tensor], wanted: dict[str, Tensor], objective: Objective) -> tuple[int, int]:
    """Count the rows in which the module's and the teacher's first class are the same."""
    head = _agreement_head(objective)
    assert head is not None
    own, other, axis = head
    mine = scores.as_rows(outputs[own].float().cpu().numpy(), axis)
    theirs = scores.as_rows(wanted[other].float().cpu().numpy(), axis)
    return int(np.sum(mine.argmax(axis=1) == theirs.argmax(axis=1))), len(mine)
