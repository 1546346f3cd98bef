"""The meaning of a rule set, as a vectorised numpy evaluator: every other form (ONNX, SQL, ...) must agree with it.

**Values.** A category is text; everything else is a double (see `modelkit.rules.columns`). Missing is the empty text
or NaN. -0.0 equals 0.0; infinities compare as in IEEE 754. Nothing is rounded: a threshold is the double nearest to
the decimal that was written.

**Conditions** are two-valued. A comparison (``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``between``, ``in``,
``not in``, linear) that looks at a missing value is false; only ``is missing`` is true there. ``and``, ``or`` and
``not`` are those of logic, so ``not (x > 3)`` is true where x is missing, and ``x <= 3`` is not. ``=`` and ``in`` of
text compare all of it, exactly. ``between`` includes both ends. A linear condition sums ``coefficient * value`` from
left to right, starting with the first product, each step rounded to a double, and compares the sum.

**Results.** A rule *fires* where its condition holds. ``rule_id`` is the index of a rule, -1 where none decides.

=========================  =========================================================================================
first, priority, unique    The outcome of the first rule that fires, in the order of the file; `priority` asks rules
                           of higher priority first. `unique` promises that no two fire: `check` proves or refutes it.
                           ``scores`` of labels: the rule's weight in the column of its label (1 for the default), 0
                           in the others.
vote                       ``scores``: for each label its base (0 where there is none), plus the weights of the rules
                           that fire for it, added in the order of the file. The label with the largest score, of
                           equals the first in `RuleSet.classes`; where no rule fires and no base is given, the
                           default. ``rule_id``: among the rules that fired for that label the one with the largest
                           weight, of equals the first.
score                      The default (0 where there is none) plus the outcomes of the rules that fire, added in the
                           order of the file. ``rule_id``: the rule that fires with the largest absolute outcome (NaN
                           counts as 0), of equals the first.
collect                    ``scores``: for each action the number of rules that fire for it; those above 0 are
                           collected. ``label`` and ``rule_id``: as with `first`. The default is collected where no
                           rule fires.
=========================  =========================================================================================

A prediction is then clamped: below the lower bound it is that bound, above the upper that; NaN stays NaN. Where
neither a rule nor a default decides, the label is the empty text (-1 for numbers), the prediction NaN (`score`: 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelkit.rules.conditions import (
    And,
    Atom,
    Between,
    Compare,
    Condition,
    In,
    IsMissing,
    Linear,
    Not,
    Operator,
    Or,
    columns_of,
)
from modelkit.rules.model import LinearScore, Number, Outcome, Policy, RuleSet

Table = Mapping[str, np.ndarray]
"""Columns of the same length: float64 with NaN, or object arrays of str with "" (see `modelkit.rules.table`)."""

Cache = dict[object, np.ndarray]
"""What was computed for a table already: comparisons, and the codes of text columns."""

_CELLS = 1 << 25  # rows times rules looked at together


@dataclass(frozen=True)
class Evaluation:
    """Results of N rows.

    Attributes:
        rule_id: int64 [N].
        label: Labels or actions, [N]: object array of str, or int64. None where numbers are predicted.
        prediction: float64 [N]. None where there are labels.
        scores: float64 [N, C], a column for each of `RuleSet.classes`; for predictions [N, 1], the prediction
            before clamping.
    """

    rule_id: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray | None
    scores: np.ndarray

    @property
    def result(self) -> np.ndarray:
        """Labels or predictions."""
        found = self.label if self.prediction is None else self.prediction
        assert found is not None
        return found


def evaluate(rules: RuleSet, table: Table) -> Evaluation:
    """Compute the results of all rows.

    Args:
        rules: The rule set.
        table: All columns of the set, as `Table` says; `modelkit.rules.table.as_table` makes one of anything.
    """
    count = len(next(iter(table.values())))
    step = max(1, _CELLS // len(rules.rules))
    parts = [_evaluate(rules, _rows(table, i, i + step)) for i in range(0, max(count, 1), step)]
    return _joined(parts)


def _rows(table: Table, start: int, stop: int) -> Table:
    return {name: values[start:stop] for name, values in table.items()}


def _joined(parts: list[Evaluation]) -> Evaluation:
    labels = [part.label for part in parts if part.label is not None]
    predictions = [part.prediction for part in parts if part.prediction is not None]
    return Evaluation(
        np.concatenate([part.rule_id for part in parts]),
        np.concatenate(labels) if labels else None,
        np.concatenate(predictions) if predictions else None,
        np.concatenate([part.scores for part in parts]),
    )


def fires(rules: RuleSet, table: Table) -> np.ndarray:
    """Which rules fire where: bool [N, R], in the order of the file."""
    count = len(next(iter(table.values())))
    cache: Cache = {}
    found = np.empty((count, len(rules.rules)), bool, order="F")
    for i, rule in enumerate(rules.rules):
        found[:, i] = holds(rule.when, table, cache)
    return found


def holds(condition: Condition, table: Table, cache: Cache | None = None) -> np.ndarray:
    """Where a condition holds: bool [N].

    Args:
        condition: The condition.
        table: The columns that it looks at.
        cache: Comparisons of this table that are known already; added to.
    """
    cache = {} if cache is None else cache
    if isinstance(condition, And | Or):
        join = np.logical_and if isinstance(condition, And) else np.logical_or
        count = len(next(iter(table.values())))
        found = np.full(count, isinstance(condition, And))
        for term in condition.terms:
            join(found, holds(term, table, cache), out=found)
        return found
    if isinstance(condition, Not):
        return ~holds(condition.term, table, cache)
    if condition not in cache:
        cache[condition] = _atom(condition, table, cache)
    return cache[condition]


def _atom(atom: Atom, table: Table, cache: Cache) -> np.ndarray:
    if isinstance(atom, Linear):
        found: np.ndarray = atom.op.function(weighted_sum(atom.terms, table), atom.bound)
        return found & ~missing_any(columns_of(atom), table)
    values = table[atom.column]
    if values.dtype == object:
        return _text_atom(atom, values, cache)
    # NaN makes all comparisons false but "not equal", as IEEE 754 has it.
    if isinstance(atom, IsMissing):
        return np.isnan(values)
    if isinstance(atom, Compare):
        found = np.asarray(atom.op.function(values, atom.value), bool)
        return found & ~np.isnan(values) if atom.op is Operator.NE else found
    if isinstance(atom, Between):
        return np.asarray((values >= atom.low) & (values <= atom.high), bool)
    found = np.isin(values, np.array(atom.values, np.float64))
    return ~found & ~np.isnan(values) if atom.negated else found


def _text_atom(atom: Compare | Between | In | IsMissing, values: np.ndarray, cache: Cache) -> np.ndarray:
    """A comparison of text: made once for each different text, which are few."""
    if atom.column not in cache:
        known: dict[str, int] = {}
        codes = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int64, len(values))
        cache[atom.column] = codes
        cache[atom.column, "texts"] = np.array([*known, ""], object)[:-1]
    texts: list[str] = cache[atom.column, "texts"].tolist()
    if isinstance(atom, IsMissing):
        marks = [not text for text in texts]
    elif isinstance(atom, Compare):
        marks = [bool(text) and bool(atom.op.function(text, atom.value)) for text in texts]
    else:
        assert isinstance(atom, In)
        marks = [bool(text) and (text in atom.values) != atom.negated for text in texts]
    found: np.ndarray = np.array([*marks, False], bool)[cache[atom.column]]
    return found


def is_missing(values: np.ndarray) -> np.ndarray:
    """Where a column has no value: bool [N]."""
    return np.asarray(values == "", bool) if values.dtype == object else np.isnan(values)


def missing_any(columns: Sequence[str], table: Table) -> np.ndarray:
    """Where any of the columns has no value: bool [N]."""
    found = np.zeros(len(next(iter(table.values()))), bool)
    for name in columns:
        found |= is_missing(table[name])
    return found


def weighted_sum(terms: Sequence[tuple[str, float]], table: Table, start: float | None = None) -> np.ndarray:
    """Sum coefficient * column from left to right, each step rounded to a double: float64 [N].

    Args:
        terms: Columns and coefficients.
        table: The columns.
        start: What the sum begins with; None for the first product (0 where there are no terms).
    """
    total = None if start is None else np.full(len(next(iter(table.values()))), float(start))
    with np.errstate(all="ignore"):
        for name, coefficient in terms:
            product = table[name] * np.float64(coefficient)
            total = product if total is None else total + product
    return np.zeros(len(next(iter(table.values())))) if total is None else total


def outcome_values(outcome: Outcome | None, table: Table) -> np.ndarray:
    """The number that an outcome gives for each row: float64 [N]; NaN for none."""
    if isinstance(outcome, LinearScore):
        return weighted_sum(outcome.terms, table, outcome.intercept)
    value = outcome.value if isinstance(outcome, Number) else np.nan
    return np.full(len(next(iter(table.values()))), value)


def first_true(marks: np.ndarray) -> np.ndarray:
    """Index of the first true in each row of bool [N, R]; -1 where there is none."""
    return np.where(marks.any(axis=1), marks.argmax(axis=1), -1)


def _evaluate(rules: RuleSet, table: Table) -> Evaluation:
    fired = fires(rules, table)
    if rules.policy is Policy.SCORE:
        return _add_up(rules, table, fired)
    if rules.policy is Policy.VOTE:
        return _vote(rules, fired)
    order = np.array(rules.order)
    position = first_true(fired[:, order])
    rule_id = np.where(position >= 0, order[position], -1)
    if rules.is_numeric:
        return _predict(rules, table, rule_id)
    chosen = _class_index(rules)[rule_id]
    scores = np.zeros((len(rule_id), len(rules.classes)))
    if rules.policy is Policy.COLLECT:
        for i, column in enumerate(_class_index(rules)[:-1]):
            scores[:, column] += fired[:, i]
        value = np.where(rule_id < 0, 1.0, scores[np.arange(len(rule_id)), chosen])
    else:
        value = np.array([*(rule.weight for rule in rules.rules), 1.0])[rule_id]
    known = np.flatnonzero(chosen >= 0)
    scores[known, chosen[known]] = value[known]
    return Evaluation(rule_id, _labels(rules, chosen), None, scores)


def _class_index(rules: RuleSet) -> np.ndarray:
    """Column in ``scores`` of each rule's label, and last (so at index -1) of the default's; -1 for no default."""
    column = {label: i for i, label in enumerate(rules.classes)}
    found = [column[rule.then.value] for rule in rules.rules]  # type: ignore[union-attr, index]
    default = -1 if rules.default is None else column[rules.default.value]  # type: ignore[union-attr, index]
    return np.array([*found, default])


def _labels(rules: RuleSet, chosen: np.ndarray) -> np.ndarray:
    """Labels for columns of ``scores``, -1 for none."""
    if rules.has_text_labels:
        return np.array([*rules.classes, ""], object)[chosen]
    return np.array([*rules.classes, -1], np.int64)[chosen]


def _predict(rules: RuleSet, table: Table, rule_id: np.ndarray) -> Evaluation:
    value = outcome_values(rules.default, table)
    for i in np.unique(rule_id[rule_id >= 0]):
        rows = np.flatnonzero(rule_id == i)
        value[rows] = outcome_values(rules.rules[i].then, {n: v[rows] for n, v in table.items()})
    return Evaluation(rule_id, None, _clamped(rules, value), value[:, None])


def _clamped(rules: RuleSet, value: np.ndarray) -> np.ndarray:
    value = value.copy()
    if rules.clamp is not None and rules.clamp.low is not None:
        value[value < rules.clamp.low] = rules.clamp.low
    if rules.clamp is not None and rules.clamp.high is not None:
        value[value > rules.clamp.high] = rules.clamp.high
    return value


def _add_up(rules: RuleSet, table: Table, fired: np.ndarray) -> Evaluation:
    total = np.zeros(len(fired)) if rules.default is None else outcome_values(rules.default, table)
    best, rule_id = np.full(len(fired), -1.0), np.full(len(fired), -1)
    with np.errstate(all="ignore"):
        for i, rule in enumerate(rules.rules):
            value = outcome_values(rule.then, table)
            total = np.where(fired[:, i], total + value, total)
            size = np.where(fired[:, i], np.nan_to_num(np.abs(value), nan=0.0, posinf=np.inf), -1.0)
            rule_id[size > best] = i
            best = np.maximum(best, size)
    return Evaluation(rule_id, None, _clamped(rules, total), total[:, None])


def _vote(rules: RuleSet, fired: np.ndarray) -> Evaluation:
    columns, base = _class_index(rules), dict(rules.base)
    scores = np.tile([float(base.get(label, 0.0)) for label in rules.classes], (len(fired), 1))
    for i, rule in enumerate(rules.rules):
        scores[fired[:, i], columns[i]] += rule.weight
    chosen = scores.argmax(axis=1)
    if not rules.base:
        chosen[~fired.any(axis=1)] = columns[-1]
    order = np.array(sorted(range(len(rules.rules)), key=lambda i: -rules.rules[i].weight))
    position = first_true(fired[:, order] & (columns[order] == chosen[:, None]))
    rule_id = np.where(position >= 0, order[position], -1)
    return Evaluation(rule_id, _labels(rules, chosen), None, scores)
