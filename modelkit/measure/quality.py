"""Quality: the task's metric against labels, batch by batch in constant memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

import numpy as np

from modelkit.errors import DataError, UsageError
from modelkit.measure import scores

# Smallest probability that a loss is taken of. One number for all types, so that a float16 model is not
# judged by a milder rule than the float32 model it came from.
_SMALLEST = float(np.finfo(np.float32).eps)
_LARGEST_LOSS = -math.log(np.finfo(np.float64).tiny)
UNLABELLED = (-100, -1, 255)
"""Positions that carry no label, by the conventions of torch (-100) and of segmentation sets (-1, 255)."""


class Task(StrEnum):
    """What a model's first output means, which decides the metric."""

    classification = "classification"
    binary = "binary"
    regression = "regression"
    none = "none"


def detect_task(
    output_shape: tuple[int | str, ...], output_dtype: np.dtype | type, labels: np.ndarray | None
) -> Task:
    """Tell the task from the first output and the labels.

    Args:
        output_shape: Shape of the first output, batch first; strings for symbolic dimensions.
        output_dtype: Its dtype.
        labels: Labels of a batch or of the whole set, batch first; None without labels.

    Returns:
        ``none`` without labels. ``classification`` where the output is class ids, or scores with an axis of
        two or more classes that the labels lack, or that the labels have one-hot. ``binary`` where output
        and labels have the same entries and all labels are 0 or 1. ``regression`` otherwise.
    """
    if labels is None:
        return Task.none
    sample = np.empty(0, output_dtype)
    whole = labels.dtype.kind != "f" or bool((labels == np.floor(labels)).all())
    if not scores.is_float(sample):
        return Task.classification if whole else Task.regression
    out, known = _squeezed(output_shape), _squeezed(labels.shape)
    if len(out) == len(known) + 1:
        return Task.classification if whole else Task.regression
    if whole and bool(np.isin(labels, (0, 1)).all()):
        return Task.classification if _one_hot(labels) else Task.binary
    return Task.regression


def class_axis_by_labels(shape: tuple[int, ...], labels: tuple[int, ...]) -> int | None:
    """Find the class axis of an output: the one that, taken out of its shape, leaves the labels' shape.

    Args:
        shape: Shape of the output, batch first.
        labels: Shape of the labels, batch first. Where two axes fit, [N, T, C] is read with the classes last
            and [N, C, H, W] with the classes second.

    Returns:
        The axis, or None where none fits.
    """
    want = _squeezed(labels)
    for axis in [2, 1] if len(shape) == 3 else [1, len(shape) - 1]:
        if axis >= 1 and _squeezed(shape[:axis] + shape[axis + 1 :]) == want:
            return axis
    return None


def _squeezed(shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return shape[:1] + tuple(size for size in shape[1:] if size != 1)


def _one_hot(labels: np.ndarray) -> bool:
    return labels.ndim == 2 and labels.shape[1] > 1 and bool((labels.sum(axis=1) == 1).all())


def primary(task: Task) -> tuple[str, bool]:
    """Name the metric that budgets are about.

    Args:
        task: Any task but ``none``.

    Returns:
        Key in `QualityMeter.result`, and whether higher is better.

    Raises:
        UsageError: The task is ``none``.
    """
    if task is Task.none:
        raise UsageError("there is no quality without labels", "give a data set with labels")
    return ("rmse", False) if task is Task.regression else ("accuracy", True)


def drop(before: Mapping[str, float], after: Mapping[str, float], task: Task) -> float:
    """Tell how much quality was lost, as budgets count it.

    Args:
        before: Result for the original.
        after: Result for the candidate.
        task: Their task.

    Returns:
        For accuracy the absolute difference (0.005 is half a percentage point); for RMSE the relative
        increase (0.005 is half a percent more). Negative where the candidate is better; inf where it cannot
        be compared (it is not finite, or the original's RMSE is 0 and the candidate's is not).

    Raises:
        UsageError: The task is ``none``.
    """
    name, higher_is_better = primary(task)
    old, new = before[name], after[name]
    if not math.isfinite(new):
        return math.inf
    if higher_is_better:
        return old - new
    if old == 0:
        return 0.0 if new == 0 else math.inf
    return (new - old) / old


class QualityMeter:
    """Adds up a quality metric over batches.

    Args:
        task: What the first output means; see `detect_task`.
    """

    def __init__(self, task: Task) -> None:
        primary(task)
        self.task = task
        self._meter: _Classes | _Binary | _Regression
        if task is Task.classification:
            self._meter = _Classes()
        elif task is Task.binary:
            self._meter = _Binary()
        else:
            self._meter = _Regression()

    def update(self, outputs: list[np.ndarray], labels: np.ndarray, valid: int) -> None:
        """Add a batch.

        Args:
            outputs: The model's outputs; only the first counts. [N, ...] with N >= valid.
            labels: Class ids [N], or [N, ...] for an output with one prediction per position (scores
                [N, C, ...] or [N, T, C]; positions labelled -100, -1 or 255 are left out); targets in the
                output's shape for regression; 0 or 1 for binary.
            valid: Rows from the start that count; the rest is padding.

        Raises:
            DataError: Labels do not fit the output, or are outside its classes.
        """
        self._meter.add(outputs[0][:valid], labels[:valid])

    def result(self) -> dict[str, float]:
        """Metrics so far, the primary one first.

        Returns:
            classification: ``accuracy``, ``top5`` (with more than 5 classes) and ``log_loss`` (from
            probabilities if every batch had them, else from the softmax), the last two not for class ids.
            binary: ``accuracy``, ``auc`` (if both labels occur), ``log_loss``. regression: ``rmse``, ``r2``
            (mean over targets), ``mae``. A row with NaN counts as wrong and as improbable as can be; for
            regression it makes the errors inf and ``r2`` -inf.

        Raises:
            DataError: No labelled row was added.
        """
        if self._meter.count == 0:
            raise DataError("no labelled rows to measure quality on")
        return self._meter.result()


class _Classes:
    def __init__(self) -> None:
        self.count = 0
        self._right = self._top5 = 0
        self._classes: int | None = None
        self._probabilities = True
        self._loss_probabilities = self._loss_logits = 0.0

    def add(self, output: np.ndarray, labels: np.ndarray) -> None:
        if not scores.is_float(output):
            self._add_ids(output, labels)
            return
        rows, targets = _align_classes(output, labels)
        self._classes = rows.shape[1]
        self.count += len(rows)
        bad = scores.unusable(rows)
        rows, targets = rows[~bad], targets[~bad]
        own = np.take_along_axis(rows, targets[:, None], axis=1)
        # Ties go to the lower class, as argmax gives them.
        rank = (rows > own).sum(axis=1)
        rank += ((rows == own) & (np.arange(rows.shape[1]) < targets[:, None])).sum(axis=1)
        self._right += int((rank == 0).sum())
        self._top5 += int((rank < 5).sum())
        worst = float(bad.sum()) * -math.log(_SMALLEST)
        self._probabilities = self._probabilities and scores.are_probabilities(rows)
        if self._probabilities:
            self._loss_probabilities += worst - float(np.log(np.maximum(own, _SMALLEST)).sum())
        chosen = np.take_along_axis(scores.log_softmax(rows), targets[:, None], axis=1)
        self._loss_logits += worst + float(np.minimum(-chosen, _LARGEST_LOSS).sum())

    def _add_ids(self, output: np.ndarray, labels: np.ndarray) -> None:
        if output.size != labels.size:
            raise _misfit(output, labels)
        self.count += output.size
        self._right += int((output.reshape(-1) == labels.reshape(-1)).sum())

    def result(self) -> dict[str, float]:
        found = {"accuracy": self._right / self.count}
        if self._classes is not None:
            if self._classes > 5:
                found["top5"] = self._top5 / self.count
            loss = self._loss_probabilities if self._probabilities else self._loss_logits
            found["log_loss"] = loss / self.count
        return found


class _Binary:
    def __init__(self) -> None:
        self.count = 0
        self._probabilities = True
        self._right_probabilities = self._right_logits = 0
        self._loss_probabilities = self._loss_logits = 0.0
        # The area under the curve needs the order of all scores: 9 bytes a row at most.
        self._scores: list[np.ndarray] = []
        self._positive: list[np.ndarray] = []

    def add(self, output: np.ndarray, labels: np.ndarray) -> None:
        if output.size != labels.size:
            raise _misfit(output, labels)
        if not np.isin(labels, (0, 1)).all():
            raise DataError(f"a label is {_outside(labels, 2)}; expected 0 or 1 for a single-score output")
        positive = labels.reshape(-1).astype(bool)
        flat = output.reshape(-1).astype(np.float64)
        self.count += flat.size
        bad = np.isnan(flat)
        worst = float(bad.sum()) * -math.log(_SMALLEST)
        flat, positive = flat[~bad], positive[~bad]
        self._scores.append(flat if output.dtype == np.float64 else flat.astype(np.float32))
        self._positive.append(positive)
        self._probabilities = self._probabilities and bool(((flat >= 0) & (flat <= 1)).all())
        if self._probabilities:
            self._right_probabilities += int(((flat > 0.5) == positive).sum())
            own = np.where(positive, flat, 1 - flat)
            self._loss_probabilities += worst - float(np.log(np.maximum(own, _SMALLEST)).sum())
        self._right_logits += int(((flat > 0) == positive).sum())
        losses = np.logaddexp(0, np.where(positive, -flat, flat))
        self._loss_logits += worst + float(np.minimum(losses, _LARGEST_LOSS).sum())

    def result(self) -> dict[str, float]:
        right = self._right_probabilities if self._probabilities else self._right_logits
        loss = self._loss_probabilities if self._probabilities else self._loss_logits
        found = {"accuracy": right / self.count}
        area = _area(np.concatenate(self._scores), np.concatenate(self._positive))
        if area is not None:
            found["auc"] = area
        found["log_loss"] = loss / self.count
        return found


def _area(values: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve by ranks, ties shared (Mann and Whitney); None with one kind of label only."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    ones = int(positive.sum())
    zeros = positive.size - ones
    if ones == 0 or zeros == 0:
        return None
    return float((middle_rank[place[positive]].sum() - ones * (ones + 1) / 2) / (ones * zeros))


class _Regression:
    def __init__(self) -> None:
        self.count = 0
        self._absolute: np.ndarray | float = 0.0
        self._squared: np.ndarray | float = 0.0
        self._mean: np.ndarray | float = 0.0
        self._spread: np.ndarray | float = 0.0

    def add(self, output: np.ndarray, labels: np.ndarray) -> None:
        if output.size != labels.size:
            raise _misfit(output, labels)
        rows = len(labels)
        if rows == 0:
            return
        targets = labels.reshape(rows, -1).astype(np.float64)
        if np.shape(self._mean) not in ((), targets.shape[1:]):
            raise DataError("the number of targets in a row changes from batch to batch")
        errors = output.reshape(rows, -1).astype(np.float64) - targets
        self._absolute += np.abs(errors).sum(axis=0)
        self._squared += (errors**2).sum(axis=0)
        # Merging means and spreads keeps digits that a sum of squares loses (Chan et al., 1983).
        mean = targets.mean(axis=0)
        gap = mean - self._mean
        total = self.count + rows
        self._spread += ((targets - mean) ** 2).sum(axis=0) + gap**2 * (self.count * rows / total)
        self._mean += gap * (rows / total)
        self.count = total

    def result(self) -> dict[str, float]:
        squared, spread = np.asarray(self._squared), np.asarray(self._spread)
        if not np.isfinite(squared).all():
            return {"rmse": math.inf, "r2": -math.inf, "mae": math.inf}
        # A target that never varies has no R2; by scikit-learn's convention it is 1 if met, else 0.
        explained = np.where(squared == 0, 1.0, 0.0)
        varies = spread > 0
        explained[varies] = 1 - squared[varies] / spread[varies]
        return {
            "rmse": math.sqrt(float(squared.mean()) / self.count),
            "r2": float(explained.mean()),
            "mae": float(np.asarray(self._absolute).mean()) / self.count,
        }


def _align_classes(output: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring scores and labels into [rows, classes] float64 and [rows] class ids."""
    if labels.shape == output.shape and _one_hot(labels):
        labels = labels.argmax(axis=1)
    axis = class_axis_by_labels(output.shape, labels.shape)
    if axis is None:
        raise _misfit(output, labels)
    rows = scores.as_rows(output, axis)
    targets = labels.reshape(-1)
    if targets.dtype.kind not in "iufb":
        raise DataError(f"labels are of type {targets.dtype}; expected class ids as whole numbers")
    if targets.dtype.kind == "f" and not (targets == np.floor(targets)).all():
        raise DataError("a label is not a whole number; expected class ids")
    targets = targets.astype(np.int64)
    classes = rows.shape[1]
    if len(rows) > len(output):
        outside = (targets < 0) | (targets >= classes)
        kept = ~(outside & np.isin(targets, UNLABELLED))
        rows, targets = rows[kept], targets[kept]
    if ((targets < 0) | (targets >= classes)).any():
        raise DataError(
            f"a label is {_outside(targets, classes)}; the model has the classes 0 to {classes - 1}",
            hint="check that the labels belong to this model and start at 0",
        )
    return rows, targets


def _outside(labels: np.ndarray, classes: int) -> str:
    wrong = labels[(labels < 0) | (labels >= classes) | (labels != np.floor(labels))]
    return f"{wrong.reshape(-1)[0]:g}"


def _misfit(output: np.ndarray, labels: np.ndarray) -> DataError:
    return DataError(
        f"labels of shape {list(labels.shape)} do not fit the model's first output of shape {list(output.shape)}",
        hint="labels are class ids [N], one id per position, or targets in the output's shape",
    )
