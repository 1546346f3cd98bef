"""What is minimised: which output meets the labels, which follow the teacher, and by which losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from modelkit.errors import DataError, ModelError
from modelkit.measure import scores
from modelkit.measure.quality import UNLABELLED, Task, class_axis_by_labels, detect_task
from modelkit.train import distillation, losses
from modelkit.train.config import TrainOptions
from modelkit.train.follow import Follow

Kind = Literal["classes", "scores", "single", "values", "features", "attention"]


@dataclass(frozen=True)
class Head:
    """One output and how it is judged.

    Attributes:
        output: Name of the module's output.
        kind: "classes" has an axis of class scores, "scores" may have one (nobody said), "single" is one score of
            two classes, "values" are numbers; "features" and "attention" are tensors inside.
        axis: Axis of the classes; -1 without.
        probabilities: Whether the output has passed a softmax or sigmoid.
        scale: What a squared error is multiplied by: one over the variance of what is wanted.
        marked: Whether whole numbers of `losses.IGNORED` mean that a sample has no label.
    """

    output: str
    kind: Kind
    axis: int = -1
    probabilities: bool = False
    scale: float = 1.0
    marked: bool = False


@dataclass(frozen=True)
class Objective:
    """The loss of a batch.

    Attributes:
        task: What the labels ask of the first output that they fit.
        hard: The output that meets the labels; None where labels take no part.
        soft: Outputs that follow the teacher, each with the teacher's output.
        alpha: Share of the labels in the loss.
        temperature: Of the distillation.
        smoothing: Of the labels.
        loss: Loss of `hard`: "cross_entropy", "bce", "mse" or "huber".
        follow: How the teacher is followed.
        hints: Tensors inside that follow those of the teacher, each with the teacher's.
    """

    task: Task
    hard: Head | None
    soft: tuple[tuple[Head, str], ...]
    alpha: float
    temperature: float
    smoothing: float
    loss: str
    follow: Follow = Follow()  # noqa: RUF009 - frozen
    hints: tuple[tuple[Head, str], ...] = ()

    def describe(self) -> str:
        """Name the loss for a reader."""
        parts = [self.loss.replace("_", "-")] if self.hard is not None else []
        if self.soft:
            kinds = sorted({self._named(head) for head, _ in self.soft})
            parts.append(f"distillation ({', '.join(kinds)})")
        if self.hints:
            parts.append(" and ".join(sorted({head.kind for head, _ in self.hints})))
        return " + ".join(parts)

    def _named(self, head: Head) -> str:
        if head.kind == "values":
            return {"huber": "Huber", "cosine": "cosine"}.get(self.follow.values, "MSE")
        return self.follow.classes.upper() if head.kind != "single" else "KL"

    def of(self, outputs: Mapping[str, Tensor], labels: Tensor | None, wanted: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch.

        Args:
            outputs: The module's outputs, real samples only.
            labels: Their labels; only read where there is a hard part.
            wanted: The teacher's outputs; only read where there is a soft part.

        Returns:
            A scalar.
        """
        parts = []
        alpha: float | Tensor = self.alpha
        if self.hard is not None:
            assert labels is not None
            if self.soft and self.hard.marked:
                # All samples count the same: one without a label is the teacher's alone.
                alpha = alpha * self.labelled(labels).float().mean()
            parts.append((alpha, self._hard(outputs[self.hard.output], labels, self.hard)))
        if self.soft:
            each = [self._soft(outputs[head.output], wanted[name], head, labels) for head, name in self.soft]
            parts.append((1 - alpha, torch.stack(each).mean()))
        if self.hints:
            each = [_hint(outputs[head.output], wanted[name], head) for head, name in self.hints]
            parts.append((self.follow.hint_weight, torch.stack(each).mean()))
        return sum((share * loss for share, loss in parts[1:]), start=parts[0][0] * parts[0][1])

    def labelled(self, labels: Tensor) -> Tensor:
        """Which samples of a batch have a label: bool ``[rows]``."""
        flat = labels.reshape(len(labels), -1)
        if flat.is_floating_point():
            return ~flat.isnan().all(dim=1)
        if self.hard is None or not self.hard.marked:
            return torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        return ~(flat == losses.IGNORED).all(dim=1)

    def _hard(self, output: Tensor, labels: Tensor, head: Head) -> Tensor:
        if self.loss == "cross_entropy":
            logits = losses.class_rows(output, head.axis, probabilities=head.probabilities)
            if labels.shape == output.shape and labels.ndim == 2:  # one-hot
                targets = labels.argmax(dim=1)
            else:
                targets = labels.reshape(-1).long()
                outside = (targets < 0) | (targets >= logits.shape[1])
                targets = targets.masked_fill(outside, losses.IGNORED)
            return losses.cross_entropy(logits, targets, smoothing=self.smoothing)
        flat = labels.reshape(len(labels), -1)
        missing = flat.isnan() if flat.is_floating_point() else (flat == losses.IGNORED) & head.marked
        known = ~missing.any(dim=1)
        output, labels = output[known], labels[known]
        if not len(labels):
            return output.sum() * 0
        if self.loss == "bce":
            logits = losses.single_logits(output, probabilities=head.probabilities)
            return losses.binary(logits, labels.reshape(-1))
        if self.loss == "huber":
            # One standard deviation of the labels is where an error starts to count as an outlier.
            return losses.huber(output, labels, delta=head.scale**-0.5) * head.scale
        return losses.squared(output, labels) * head.scale

    def _soft(self, output: Tensor, wanted: Tensor, head: Head, labels: Tensor | None) -> Tensor:
        if head.kind == "values":
            return self._values(output, wanted, head)
        if head.kind == "single":
            student, teacher = (losses.single_logits(t, probabilities=head.probabilities) for t in (output, wanted))
            return distillation.binary_divergence(student, teacher, temperature=self.temperature)
        student, teacher = (
            losses.class_rows(t, head.axis, probabilities=head.probabilities) for t in (output, wanted)
        )
        first, second = self.follow.weights
        if self.follow.classes == "dist":
            return distillation.relations(
                student, teacher, temperature=self.temperature, between=first, within=second
            )
        if self.follow.classes == "dkd" and student.shape[1] > 2:
            targets = self._targets(teacher, labels, head)
            return distillation.decoupled(
                student, teacher, targets, temperature=self.temperature, target=first, others=second
            )
        divergence = distillation.divergence(student, teacher, temperature=self.temperature)
        if head.kind == "scores":
            # A softmax does not see a shift that all scores share; where they are no class scores, it matters.
            return divergence + losses.squared(output, wanted) * head.scale
        return divergence

    def _values(self, output: Tensor, wanted: Tensor, head: Head) -> Tensor:
        if self.follow.values == "cosine":
            return losses.cosine(output, wanted)
        if self.follow.values == "huber":
            return losses.huber(output, wanted, delta=head.scale**-0.5) * head.scale
        return losses.squared(output, wanted) * head.scale

    def _targets(self, teacher: Tensor, labels: Tensor | None, head: Head) -> Tensor:
        """The class of each row: its label where it has one, else what the teacher says."""
        said = teacher.argmax(dim=1)
        if labels is None or self.hard is None or self.hard.output != head.output or labels.numel() != len(said):
            return said
        given = labels.reshape(-1).long()
        return torch.where((given >= 0) & (given < teacher.shape[1]), given, said)


def _hint(output: Tensor, wanted: Tensor, head: Head) -> Tensor:
    if head.kind == "attention":
        return distillation.attention(output, wanted)
    return losses.squared(output, wanted) * head.scale


def plan_objective(
    outputs: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    wanted: Mapping[str, np.ndarray] | None,
    options: TrainOptions,
    follow: Follow = Follow(),  # noqa: B008 - frozen
) -> Objective:
    """Decide on the losses, given some samples.

    Args:
        outputs: The untrained module's outputs for them, real samples only.
        labels: All labels of the training set, ``[count, ...]``; None without labels.
        wanted: The teacher's outputs for the same samples; None without a teacher.
        options: `loss`, `alpha`, `temperature` and `label_smoothing` are read.
        follow: How the teacher is followed.

    Raises:
        DataError: There is neither a label nor a teacher to learn from, or the labels do not fit the loss.
        ModelError: No output is a float, so that no gradient can be taken of it.
    """
    inside = {hint.output for hint in follow.hints}
    floats = {n: array for n, array in outputs.items() if n not in inside and scores.is_float(array)}
    if not floats:
        raise ModelError(
            f"no output is a float ({', '.join(outputs)}), so nothing can be learned from an error",
            "export the model with its scores as an output, not only the chosen class",
        )
    use_labels = labels is not None and options.loss != "distill" and (wanted is None or options.alpha > 0)
    if not use_labels and wanted is None:
        raise DataError(
            "training needs labels, or the original model to follow",
            hint="give a data set with labels, or train without `loss` to follow the original",
        )
    if labels is None and options.loss not in ("auto", "distill"):
        raise DataError(f"the loss {options.loss} needs labels, and the data has none", hint="use the loss auto")
    hard, task, loss = None, Task.none, ""
    known = None if labels is None else _known(labels)
    if labels is not None and known is not None:
        hard, task, loss = _hard_head(floats, known, options.loss)
        hard = replace(hard, marked=len(known) < len(labels))
    hints: tuple[tuple[Head, str], ...] = ()
    soft: tuple[tuple[Head, str], ...] = ()
    if wanted is not None:
        hints = tuple((Head(h.output, h.kind, scale=_scale(wanted[h.teacher])), h.teacher) for h in follow.hints)
        theirs = {hint.teacher for hint in follow.hints}
        outer = {name: array for name, array in wanted.items() if name not in theirs}
        soft = _soft_heads(floats, outer, hard, task, numbers=follow.values != "auto")
    if options.label_smoothing and loss != "cross_entropy":
        raise DataError(f"label_smoothing belongs to class labels; here the loss is {loss or 'distillation'}")
    share = options.alpha if soft else 1.0
    return Objective(
        task,
        hard if use_labels else None,
        soft,
        share if use_labels else 0.0,
        options.temperature,
        options.label_smoothing,
        loss,
        follow,
        hints,
    )


def _hard_head(outputs: Mapping[str, np.ndarray], labels: np.ndarray, wish: str) -> tuple[Head, Task, str]:
    """Find the output that the labels belong to: the first that they fit."""
    for name, output in outputs.items():
        shape = (len(labels), *output.shape[1:])
        task = detect_task(shape, output.dtype, labels)
        loss = {"classification": "cross_entropy", "binary": "bce", "regression": "mse"}[task]
        if wish in ("cross_entropy", "bce", "mse", "huber"):
            loss = wish
        size = int(np.prod(shape, dtype=np.int64))
        if loss == "cross_entropy":
            axis = _label_axis(shape, labels)
            if axis is None or not _whole(labels):
                continue
            _check_classes(labels, shape, axis)
            rows = scores.as_rows(output, axis)
            return Head(name, "classes", axis, scores.are_probabilities(rows)), Task.classification, loss
        if size != labels.size:
            continue
        if loss == "bce":
            if labels.size and (labels.min() < 0 or labels.max() > 1):
                raise DataError("the loss bce needs labels of 0 to 1", hint="use the loss auto, or mse")
            return Head(name, "single", -1, _in_unit(output)), Task.binary, loss
        return Head(name, "values", scale=_scale(labels)), Task.regression, loss
    shapes = ", ".join(f"{name} {list(output.shape[1:])}" for name, output in outputs.items())
    what = "the labels" if wish in ("auto", "distill") else f"the loss {wish} and the labels"
    raise DataError(
        f"{what} of shape {list(labels.shape)} fit no output (of a sample: {shapes})",
        hint="class ids need an output of scores; other labels need one number for each number of the output",
    )


def _known(labels: np.ndarray) -> np.ndarray | None:
    """The labels of samples that have one; None where there are none.

    Numbers that are no classes may be negative: among negative ones the mark means itself.
    """
    flat = labels.reshape(len(labels), -1)
    missing = np.isnan(flat) if labels.dtype.kind == "f" else flat == losses.IGNORED
    if labels.dtype.kind != "f" and bool((flat[~missing] < 0).any()):
        return labels
    # Some positions of a sample may have none; a sample has none where all of them do.
    known = labels[~missing.all(axis=1)]
    return known if len(known) else None


def _label_axis(shape: tuple[int, ...], labels: np.ndarray) -> int | None:
    if labels.shape == shape and labels.ndim == 2 and shape[1] > 1:
        return 1
    return class_axis_by_labels(shape, labels.shape)


def _whole(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "iub" or bool((labels == np.floor(labels)).all())


def _check_classes(labels: np.ndarray, shape: tuple[int, ...], axis: int) -> None:
    if labels.shape == shape:
        return
    wrong = (labels < 0) | (labels >= shape[axis])
    if len(shape) > 2:
        wrong &= ~np.isin(labels, UNLABELLED)
    if wrong.any():
        raise DataError(
            f"a label is {labels[wrong].reshape(-1)[0]:g}; the model has the classes 0 to {shape[axis] - 1}",
            hint="check that the labels belong to this model and start at 0",
        )


def _soft_heads(
    outputs: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    hard: Head | None,
    task: Task,
    *,
    numbers: bool,
) -> tuple[tuple[Head, str], ...]:
    """Pair the outputs with the teacher's: by name, or by place where there are as many of them.

    What may be class scores, and nothing says so, is taken for ``numbers`` where that is said.
    """
    theirs = {name: array for name, array in wanted.items() if scores.is_float(array)}
    pairs = [(name, name) for name in outputs if name in theirs]
    if not pairs and len(theirs) == len(outputs):
        pairs = list(zip(outputs, theirs, strict=True))
    heads = []
    for own, other in pairs:
        mine, target = outputs[own], theirs[other]
        if mine.shape != target.shape:
            raise ModelError(
                f"the output '{own}' has the shape {list(mine.shape)}, the teacher's '{other}' {list(target.shape)}",
                "the teacher must have the same outputs",
            )
        head = _soft_head(own, target, hard if hard is not None and hard.output == own else None, task)
        if numbers and head.kind == "scores":
            head = replace(head, kind="values", axis=-1)
        heads.append((head, other))
    if not heads:
        raise ModelError(f"the teacher has none of the outputs {', '.join(outputs)}; it has {', '.join(wanted)}")
    return tuple(heads)


def _soft_head(name: str, target: np.ndarray, hard: Head | None, task: Task) -> Head:
    """Tell what a teacher's output is, by the labels' word or else by its values."""
    scale = _scale(target)
    if hard is not None and hard.kind == "values" and task is Task.regression:
        return Head(name, "values", scale=scale)
    axis = hard.axis if hard is not None and hard.kind == "classes" else scores.class_axis(target.shape)
    if hard is not None and hard.kind == "single":
        return Head(name, "single", -1, _in_unit(target))
    if axis is not None:
        probabilities = scores.are_probabilities(scores.as_rows(target, axis))
        return Head(name, "classes" if probabilities or hard is not None else "scores", axis, probabilities, scale)
    if _in_unit(target) and target.size > 1:
        return Head(name, "single", -1, True)
    return Head(name, "values", scale=scale)


def _in_unit(values: np.ndarray) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _scale(values: np.ndarray) -> float:
    """One over the variance within a column, averaged over the columns; 1 where nothing varies."""
    variance = float(values.astype(np.float64).reshape(len(values), -1).var(axis=0).mean())
    return 1 / variance if np.isfinite(variance) and variance > 0 else 1.0
