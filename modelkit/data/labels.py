"""Checks labels: one for each sample, integers in range for a classifier, finite numbers otherwise."""

from __future__ import annotations

import numpy as np

from modelkit.data.check import Problems, describe_shape, dtype_name, family

LABELS = "labels"


def check_labels(labels: np.ndarray, count: int | None, classes: int | None, problems: Problems) -> np.ndarray | None:
    """Check labels and bring them to one form.

    Args:
        labels: As stored, ``[count]``, ``[count, 1]`` or, for regression, ``[count, ...]``; floats
            ``[count, classes]`` count as regression whatever `classes` is.
        count: Samples in the dataset; None where that is not known for sure.
        classes: Classes that the model tells apart; None for a regression or where it is not known.
        problems: Where to add what is wrong.

    Returns:
        int64 labels ``[count]`` or float labels ``[count, ...]``; None where they are wrong.
    """
    before = len(problems.found)
    if labels.ndim == 0:
        problems.add("labels are a single value; one for each sample is needed")
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if count is not None and len(labels) != count:
        problems.add(f"there are {len(labels)} labels for {count} samples")
    # One float for each output is a regression with several targets, which looks like class scores.
    targets = labels.ndim == 2 and labels.shape[1] == classes and family(labels.dtype) == "float"
    if targets:
        classes = None
    labels = _plain(labels, problems) if classes is None else _class_numbers(labels, classes, problems)
    return labels if len(problems.found) == before else None


def _plain(labels: np.ndarray, problems: Problems) -> np.ndarray:
    kind = family(labels.dtype)
    if kind in ("int", "bool"):
        return _to_int64(labels, problems)
    if kind != "float":
        problems.add(f"labels are {dtype_name(labels.dtype)}; they must be numbers")
        return labels
    wrong = ~np.isfinite(labels.reshape(len(labels), -1)).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        problems.add(f"labels have NaN or an infinite value at row {row} (counted from 0)")
    return labels.astype(labels.dtype.newbyteorder("="))


def _class_numbers(labels: np.ndarray, classes: int, problems: Problems) -> np.ndarray:
    if labels.ndim != 1:
        problems.add(f"labels are {describe_shape(labels.shape)}; one integer for each sample is needed")
        return labels
    if family(labels.dtype) not in ("int", "bool"):
        problems.add(f"labels are {dtype_name(labels.dtype)}; they must be integers from 0 to {classes - 1}")
        return labels
    labels = _to_int64(labels, problems)
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        problems.add(
            f"label {labels[row]} at row {row} (counted from 0) is not in 0 to {classes - 1}; "
            f"{int(wrong.sum())} labels are out of range"
        )
    return labels


def _to_int64(labels: np.ndarray, problems: Problems) -> np.ndarray:
    if labels.dtype.kind == "u" and labels.dtype.itemsize == 8 and (labels > np.iinfo(np.int64).max).any():
        problems.add("labels are larger than int64 holds")
    return labels.astype(np.int64)
