"""Which trials make the final model, and with what weights: greedy selection on predictions out of fold.

Caruana et al., "Ensemble selection from libraries of models" (2004): start with nothing, again and again add the
model (it may be there already) with which the mean predicts best. If a linear model is within some standard errors of
the result, it is taken instead. The loss that selects is never reported: it flatters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelkit.automl.blend import soften
from modelkit.automl.losses import Metric, labels_score, loss, row_losses

_SIMPLE = 1  # the complexity of linear models
_START, _FAR = 3, 1.6  # families that an ensemble starts with, and how many times worse than the best they may be
_PULL = 5.0  # rows' worth of evidence that probabilities are right as they are


@dataclass(frozen=True)
class Choice:
    """What came of the selection.

    Attributes:
        weights: Number of the trial -> its weight; they sum to 1.
        loss: Loss out of fold.
        single: Whether a single model was preferred because it is as good within a standard error.
    """

    weights: dict[int, float]
    loss: float
    single: bool = False


def greedy(
    metric: Metric,
    y: np.ndarray,
    predictions: Mapping[int, np.ndarray],
    weight: np.ndarray | None,
    families: Mapping[int, str],
    steps: int = 40,
    most: int = 8,
) -> Choice:
    """Select with replacement until nothing helps.

    It starts with the best models of the best families together: on few rows a first pick alone is a matter of luck.

    Args:
        metric: What is minimised.
        y: Class numbers or values [N].
        predictions: Trial -> predictions out of fold, [N, K] or [N, 1].
        weight: Weights of rows [N], or None.
        families: Trial -> its family.
        steps: Selections at most.
        most: Different members at most.
    """
    alone = {number: loss(metric, y, predicted, weight) for number, predicted in predictions.items()}
    start = _best_of_families(alone, families)[: min(_START, most)]
    counts = dict.fromkeys(start, 1)
    total = np.sum([predictions[number] for number in start], axis=0)
    best = loss(metric, y, total / len(start), weight)
    for _ in range(steps):
        count = sum(counts.values())
        allowed = predictions if len(counts) < most else counts
        found = {n: loss(metric, y, (total + predictions[n]) / (count + 1), weight) for n in allowed}
        number = min(found, key=lambda n: (found[n], n))
        if found[number] >= best - 1e-6 * abs(best):
            break
        best = found[number]
        counts[number] = counts.get(number, 0) + 1
        total = total + predictions[number]
    share = sum(counts.values())
    return Choice({number: count / share for number, count in sorted(counts.items())}, best)


def _best_of_families(alone: Mapping[int, float], families: Mapping[int, str]) -> list[int]:
    """The best trial of each family, the best first, without those that are far behind."""
    found: dict[str, int] = {}
    for number in sorted(alone, key=lambda n: (alone[n], n)):
        found.setdefault(families[number], number)
    numbers = list(found.values())
    return [number for number in numbers if alone[number] <= _FAR * alone[numbers[0]]]


def prefer_single(
    choice: Choice,
    metric: Metric,
    y: np.ndarray,
    predictions: Mapping[int, np.ndarray],
    complexity: Mapping[int, int],
    tolerance: float = 1.0,
    repeats: int = 1,
) -> Choice:
    """A simple model alone, where one is as good within ``tolerance`` standard errors of the difference.

    Only linear models and the constant count as simple: between single trees and many, the many are steadier.
    Where rows are predicted in several repetitions, one after the other, they are still so many rows and no more.
    """
    if len(choice.weights) == 1:
        return choice
    blend = np.sum([weight * predictions[number] for number, weight in choice.weights.items()], axis=0)
    together = row_losses(metric, y, blend)
    if together is None:
        return choice
    near: list[tuple[int, float, int]] = []
    for number, predicted in predictions.items():
        if complexity[number] > _SIMPLE:
            continue
        alone = row_losses(metric, y, predicted)
        assert alone is not None
        gap = (alone - together).reshape(repeats, -1).mean(axis=0)
        if gap.mean() <= tolerance * gap.std() / len(gap) ** 0.5:
            near.append((complexity[number], float(alone.mean()), number))
    if not near:
        return choice
    number = min(near)[2]
    return Choice({number: 1.0}, loss(metric, y, predictions[number]), single=True)


def calibrate(y: np.ndarray, probabilities: np.ndarray, repeats: int = 1) -> float:
    """The temperature with the least log-loss, or 1 where it does not help by more than a standard error.

    Args:
        y: Numbers of the classes [R * N].
        probabilities: Probabilities out of fold [R * N, K].
        repeats: Repetitions R that are one after the other.
    """
    before = row_losses(Metric.log_loss, y, probabilities)
    assert before is not None
    best, after, lowest = 1.0, before, float(before.mean())
    for temperature in np.exp(np.linspace(np.log(0.8), np.log(2.5), 33)):
        rows = row_losses(Metric.log_loss, y, soften(probabilities, float(temperature)))
        assert rows is not None
        total = float(rows.mean()) + _PULL * repeats * np.log(temperature) ** 2 / len(y)
        if total < lowest:
            best, after, lowest = float(temperature), rows, total
    gain = (before - after).reshape(repeats, -1).mean(axis=0)
    return best if gain.mean() > gain.std() / len(gain) ** 0.5 else 1.0


def favour(metric: Metric, y: np.ndarray, probabilities: np.ndarray, weight: np.ndarray | None) -> list[float] | None:
    """Factors on the classes [K] with which choosing the largest scores best; None where all alike do.

    Of two classes, the factors stand for a decision threshold; of more, each class is favoured in proportion to a
    power of its rarity.
    """
    if metric not in (Metric.balanced_accuracy, Metric.f1):
        return None
    classes = probabilities.shape[1]
    share = np.bincount(y, minlength=classes) / len(y)
    if classes == 2:
        cuts = np.unique(np.quantile(probabilities[:, 1], np.linspace(0.01, 0.99, 99)))
        cuts = cuts[(cuts > 1e-6) & (cuts < 1 - 1e-6)]
        options = [np.array([1.0, (1 - cut) / cut]) for cut in cuts]
    else:
        options = [np.maximum(share, 1e-6) ** -power for power in np.linspace(0, 1.2, 13)]
    if not options:
        return None

    def score(factor: np.ndarray) -> float:
        return labels_score(metric, y, (probabilities * factor).argmax(axis=1), classes, weight)

    best = max(options, key=score)
    return [float(value) for value in best] if score(best) > score(np.ones(classes)) else None
