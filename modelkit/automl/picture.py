"""What shows at a glance how right a model is: its confidence beside its accuracy, or predictions beside values."""

from __future__ import annotations

from typing import Any

import numpy as np

_BINS, _POINTS = 10, 300


def confidence(y: np.ndarray, probabilities: np.ndarray, numbers: np.ndarray) -> dict[str, Any]:
    """Reliability of the chosen class (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    Args:
        y: Numbers of the right classes [N].
        probabilities: Probabilities [N, K].
        numbers: Numbers of the chosen classes [N].

    Returns:
        ``kind`` "confidence"; ``bins`` of confidence with their mean ``confidence``, ``accuracy`` and ``rows``;
        ``error``, the expected calibration error: the mean distance of the two.
    """
    sure, right = probabilities[np.arange(len(y)), numbers], numbers == y
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    bins = [
        {"confidence": float(sure[mine].mean()), "accuracy": float(right[mine].mean()), "rows": int(mine.sum())}
        for number in range(_BINS)
        if (mine := place == number).any()
    ]
    error = sum(each["rows"] * abs(each["confidence"] - each["accuracy"]) for each in bins) / len(y)
    return {"kind": "confidence", "bins": bins, "error": float(error)}


def values(y: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Predictions beside the values that were to be predicted.

    Args:
        y: Values [N].
        predicted: Predictions [N].

    Returns:
        ``kind`` "values"; ``points`` with ``value`` and ``prediction``, at most 300, spread over the values.
    """
    order = np.argsort(y, kind="stable")
    if len(order) > _POINTS:
        order = order[np.linspace(0, len(order) - 1, _POINTS).round().astype(int)]
    points = [{"value": float(y[row]), "prediction": float(predicted[row])} for row in order]
    return {"kind": "values", "points": points}
