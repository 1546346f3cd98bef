"""What is minimised: a loss for each row, or a figure of all rows where it has no such form."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

_SMALLEST = 1e-15


class Metric(StrEnum):
    """What is optimised."""

    log_loss = "log_loss"
    accuracy = "accuracy"
    balanced_accuracy = "balanced_accuracy"
    f1 = "f1"
    auc = "auc"
    rmse = "rmse"
    mae = "mae"

    @property
    def is_regression(self) -> bool:
        """Whether it is about numbers rather than classes."""
        return self in (Metric.rmse, Metric.mae)


def row_losses(metric: Metric, y: np.ndarray, predicted: np.ndarray) -> np.ndarray | None:
    """Loss of each row [N] whose mean is the loss (for RMSE its square); None where a metric has no such form.

    Args:
        metric: The metric.
        y: Class numbers or values [N].
        predicted: Probabilities [N, K] or predictions [N, 1].
    """
    if metric is Metric.rmse:
        return np.asarray((predicted[:, 0] - y) ** 2)
    if metric is Metric.mae:
        return np.asarray(np.abs(predicted[:, 0] - y))
    if metric is Metric.log_loss:
        own = predicted[np.arange(len(y)), y]
        return np.asarray(-np.log(np.clip(own, _SMALLEST, 1)))
    if metric is Metric.accuracy:
        return np.asarray(predicted.argmax(axis=1) != y, float)
    return None


def loss(metric: Metric, y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The loss of all rows, smaller is better: RMSE, MAE, log-loss, or 1 minus a share."""
    rows = row_losses(metric, y, predicted)
    if rows is not None:
        mean = float(np.average(rows, weights=weight))
        return mean**0.5 if metric is Metric.rmse else mean
    if metric is Metric.auc:
        return 1 - _auc(y, predicted, weight)
    return 1 - labels_score(metric, y, predicted.argmax(axis=1), predicted.shape[1], weight)


def labels_score(metric: Metric, y: np.ndarray, labels: np.ndarray, classes: int, weight: np.ndarray | None) -> float:
    """Balanced accuracy or F1 (of the second class; macro-averaged over three and more) of chosen classes."""
    w = np.ones(len(y)) if weight is None else weight
    table = np.zeros((classes, classes))
    np.add.at(table, (y, labels), w)
    hit, real, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    if metric is Metric.balanced_accuracy:
        return float(np.mean(hit[real > 0] / real[real > 0]))
    f1 = 2 * hit / np.maximum(real + said, 1e-300)
    return float(f1[1] if classes == 2 else f1.mean())


def _auc(y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None) -> float:
    """Area under the ROC curve; for three and more classes the mean of each against the rest."""
    w = np.ones(len(y)) if weight is None else weight
    areas = []
    for k in [1] if predicted.shape[1] == 2 else range(predicted.shape[1]):
        positive = y == k
        if positive.all() or not positive.any():
            continue
        _, place = np.unique(predicted[:, k], return_inverse=True)
        ones = np.bincount(place, w * positive)
        zeros = np.bincount(place, w * ~positive, minlength=len(ones))
        below = np.cumsum(zeros) - zeros
        areas.append(float((ones * (below + zeros / 2)).sum() / (ones.sum() * zeros.sum())))
    return float(np.mean(areas)) if areas else 0.5


def scores(
    y: np.ndarray, predicted: np.ndarray, labels: np.ndarray | None, weight: np.ndarray | None
) -> dict[str, float]:
    """Every figure of quality that a report shows, the usual one first."""
    if labels is None:
        error = predicted[:, 0] - y
        spread = float(np.average((y - np.average(y, weights=weight)) ** 2, weights=weight))
        squared = float(np.average(error**2, weights=weight))
        r2 = 1 - squared / spread if spread else 0.0
        return {"rmse": squared**0.5, "r2": r2, "mae": float(np.average(np.abs(error), weights=weight))}
    return {
        "accuracy": float(np.average(labels == y, weights=weight)),
        "log_loss": loss(Metric.log_loss, y, predicted, weight),
        "balanced_accuracy": labels_score(Metric.balanced_accuracy, y, labels, predicted.shape[1], weight),
        "f1": labels_score(Metric.f1, y, labels, predicted.shape[1], weight),
        "auc": 1 - loss(Metric.auc, y, predicted, weight),
    }
