"""From a typed table to a problem: the target, the columns that are of use, and what a person must know."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from modelkit.automl.problem import Problem, Task
from modelkit.data.frame import Field, Frame, Kind
from modelkit.decision import Decision
from modelkit.errors import DataError, UsageError
from modelkit.files import shown

_FEW = 20  # different whole numbers that are taken for classes
_MOST_CLASSES = 200
_LEAK = 0.999


@dataclass(frozen=True)
class Roles:
    """Columns with a use of their own.

    Attributes:
        target: What is predicted.
        weight: How much each row counts.
        group: Rows that belong together.
        time: When a row happened; earlier rows predict later ones.
        ignore: Columns that are left out.
    """

    target: str
    weight: str | None = None
    group: str | None = None
    time: str | None = None
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A problem, what was decided about each column, and what a reader must know.

    Attributes:
        problem: The problem.
        decisions: What was decided about each column.
        notes: What a reader must know.
        rows: Numbers of the table's rows that the problem has.
    """

    problem: Problem
    decisions: list[Decision]
    notes: list[str]
    rows: np.ndarray


def prepare(frame: Frame, roles: Roles, task: Task | None, seed: int) -> Prepared:
    """Tell what is to be predicted from which columns.

    Args:
        frame: The table.
        roles: Columns with a use of their own.
        task: What is predicted; told from the target by default.
        seed: Seed of everything random.

    Raises:
        UsageError: A column that was named is not there.
        DataError: The target is all missing, has one class, or no column is of use.
    """
    for name in (roles.target, roles.weight, roles.group, roles.time, *roles.ignore):
        if name is not None and name not in frame.fields:
            near = difflib.get_close_matches(name, frame.fields, n=3, cutoff=0.5) or list(frame.fields)[-3:]
            listed = " or ".join(f"'{shown(each)}'" for each in near)
            raise UsageError(f"{shown(frame.name)} has no column '{shown(name)}'", f"did you mean {listed}?")
    notes = list(frame.notes)
    target = frame.fields[roles.target]
    there = ~target.missing
    if not there.any():
        raise DataError(f"the target '{shown(target.name)}' has no values", hint="name another column with --target")
    if not there.all():
        gone = int((~there).sum())
        notes.append(f"{gone} {'rows' if gone > 1 else 'row'} without a target are left out")
        frame = frame.take(np.flatnonzero(there))
        target = frame.fields[roles.target]
    task = task or guess_task(target)
    y, classes = _encoded(target, task)
    decisions = _column_decisions(frame, roles, target)
    used = [d.target for d in decisions if d.action == "used"]
    if not used:
        why = "; ".join(f"'{shown(d.target)}' is {d.reason}" for d in decisions[:4])
        raise DataError(f"no column of {shown(frame.name)} is of use to predict '{shown(target.name)}': {why}")
    notes += _leaks(frame.only(used), y, task)
    notes += _imbalance(y, classes)
    problem = Problem(
        task,
        roles.target,
        frame.only(used),
        y,
        classes,
        _weights(frame, roles.weight),
        _groups(frame, roles.group),
        _order(frame, roles.time),
        seed,
    )
    return Prepared(problem, decisions, notes, np.flatnonzero(there))


def guess_task(target: Field) -> Task:
    """Classes for text, booleans and few whole numbers; else a number."""
    if target.kind is Kind.boolean or target.kind.is_string:
        return Task.classification
    distinct = target.distinct()
    few = len(distinct) <= _FEW and len(distinct) <= max(2, len(target.values) // 5)
    return Task.classification if target.whole and few else Task.regression


def _encoded(target: Field, task: Task) -> tuple[np.ndarray, np.ndarray]:
    name = shown(target.name)
    if task is Task.regression:
        if target.kind.is_string:
            raise DataError(
                f"the target '{name}' holds text, which regression cannot predict", hint="leave --task out"
            )
        if len(target.distinct()) < 2:
            raise DataError(
                f"the target '{name}' has the same value in every row", hint="there is nothing to predict"
            )
        return target.values.astype(float), np.empty(0, object)
    distinct = target.distinct()
    if len(distinct) < 2:
        only = shown(str(distinct[0]))[:60]
        raise DataError(f"the target '{name}' has one class only: '{only}'", hint="there is nothing to tell apart")
    if len(distinct) > _MOST_CLASSES:
        raise DataError(
            f"the target '{name}' has {len(distinct)} classes; at most {_MOST_CLASSES} can be told apart",
            hint="--task regression predicts a number" if not target.kind.is_string else "is it an identifier?",
        )
    if target.kind.is_string:
        classes = np.array([*(str(each) for each in distinct), None], object)[:-1]
        place = {text: number for number, text in enumerate(classes)}
        return np.array([place[value] for value in target.values], np.int64), classes
    if not (distinct == np.rint(distinct)).all():
        raise DataError(f"the target '{name}' holds numbers with fractions", hint="--task regression predicts them")
    return np.searchsorted(distinct, target.values).astype(np.int64), distinct.astype(np.int64)


def _column_decisions(frame: Frame, roles: Roles, target: Field) -> list[Decision]:
    own = {roles.weight: "the weights", roles.group: "the groups", roles.time: "the time of a row"}
    found = []
    for name, field in frame.fields.items():
        if name == target.name:
            continue
        if name in roles.ignore:
            found.append(Decision(name, "left out", "named by --ignore"))
        elif name in own and name != roles.time:
            found.append(Decision(name, "left out", own[name]))
        else:
            found.append(_decide(field, frame.rows))
    return found


def _decide(field: Field, rows: int) -> Decision:
    missing = field.missing
    gaps = float(missing.mean())
    distinct = field.distinct()
    numbers: dict[str, float | int | str] = {"kind": field.kind.value, "distinct": len(distinct)}
    if gaps:
        numbers["missing"] = f"{100 * gaps:.1f} %"
    if len(distinct) == 0:
        return Decision(field.name, "left out", "empty", numbers)
    if len(distinct) == 1 and not missing.any():
        return Decision(field.name, "left out", "constant: every row has the same value", numbers)
    if field.kind is Kind.text:
        reason = "free text: no words are learned from it; turn it into categories or numbers first"
        return Decision(field.name, "left out", reason, numbers)
    if _is_identifier(field, distinct, rows):
        return Decision(field.name, "left out", "an identifier: it has another value in every row", numbers)
    return Decision(field.name, "used", f"as {field.kind.value}", numbers)


def _is_identifier(field: Field, distinct: np.ndarray, rows: int) -> bool:
    if rows < 20 or len(distinct) < rows:
        return False
    if field.kind.is_string:
        return True
    return field.whole and bool((np.diff(distinct) == 1).all())


def _leaks(frame: Frame, y: np.ndarray, task: Task) -> list[str]:
    """Warnings about columns that say the target outright."""
    found = []
    for name, field in frame.fields.items():
        value = _association(field, y, task)
        if value >= _LEAK:
            found.append(
                f"column '{name}' all but tells the target (correlation {value:.4f}): if it is not known before the "
                "target is, leave it out with --ignore"
            )
    return found


def _association(field: Field, y: np.ndarray, task: Task) -> float:
    """Correlation with the target, from 0 to 1: Pearson's of numbers, else Cramér's V."""
    there = ~field.missing
    if there.sum() < 10:
        return 0.0
    values, target = field.values[there], y[there]
    if task is Task.regression or (not field.kind.is_string and len(np.unique(target)) == 2):
        if field.kind.is_string:
            return 0.0
        spread = values.std() * target.std()
        return float(abs(np.mean((values - values.mean()) * (target - target.mean())) / spread)) if spread else 0.0
    levels, codes = np.unique(values.astype(str) if field.kind.is_string else values, return_inverse=True)
    if len(levels) > min(200, there.sum() // 5):
        return 0.0
    _, labels = np.unique(target, return_inverse=True)
    table = np.zeros((len(levels), labels.max() + 1))
    np.add.at(table, (codes, labels), 1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    least = min(table.shape) - 1
    return float(np.sqrt(((table - expected) ** 2 / expected).sum() / table.sum() / least)) if least else 0.0


def _imbalance(y: np.ndarray, classes: np.ndarray) -> list[str]:
    if not len(classes):
        return []
    counts = np.bincount(y, minlength=len(classes))
    rare = int(counts.argmin())
    if counts[rare] >= 0.05 * len(y) or len(classes) > 10:
        return []
    share = 100 * counts[rare] / len(y)
    return [
        f"class '{classes[rare]}' is rare ({counts[rare]} rows, {share:.1f} %): accuracy says little about it; "
        "--metric balanced_accuracy or f1 chooses the decision threshold for it"
    ]


def _weights(frame: Frame, name: str | None) -> np.ndarray | None:
    if name is None:
        return None
    field = frame.fields[name]
    if field.kind.is_string or field.missing.any() or (field.values < 0).any() or not field.values.any():
        raise DataError(f"the weights '{shown(name)}' must be numbers of at least 0, none of them missing")
    return np.asarray(field.values / field.values.mean())


def _groups(frame: Frame, name: str | None) -> np.ndarray | None:
    if name is None:
        return None
    field = frame.fields[name]
    values = field.values.astype(str) if field.kind.is_string else field.values
    _, numbers = np.unique(values, return_inverse=True)
    if numbers.max() < 2:
        raise DataError(f"the groups '{shown(name)}' are fewer than three", hint="they are split in parts")
    return np.asarray(numbers, np.int64)


def _order(frame: Frame, name: str | None) -> np.ndarray | None:
    if name is None:
        return None
    field = frame.fields[name]
    if field.kind.is_string or field.missing.any():
        raise DataError(f"the time column '{shown(name)}' must hold dates or numbers, none of them missing")
    return field.values
