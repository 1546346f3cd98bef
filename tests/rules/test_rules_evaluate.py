"""The meaning of rule sets, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modelkit.errors import ConfigError, DataError
from modelkit.rules.columns import Column, ColumnType, date_number, date_text
from modelkit.rules.conditions import ALWAYS, And, Between, Compare, Condition, In, IsMissing, Linear, Not, Operator
from modelkit.rules.evaluate import evaluate, fires, holds
from modelkit.rules.load import from_yaml
from modelkit.rules.model import Label, LinearScore, Number, Policy, Rule, RuleSet
from modelkit.rules.table import as_table

NAN = math.nan
X = {"x": np.array([1.0, 2.0, NAN, -0.0])}
KIND = {"k": np.array(["a", "A", "", "b"], object)}


@pytest.mark.parametrize(
    ("condition", "table", "expected"),
    [
        (Compare("x", Operator.LT, 2.0), X, [1, 0, 0, 1]),
        (Compare("x", Operator.NE, 2.0), X, [1, 0, 0, 1]),
        (Compare("x", Operator.EQ, 0.0), X, [0, 0, 0, 1]),
        (Not(Compare("x", Operator.LT, 2.0)), X, [0, 1, 1, 0]),
        (Between("x", 1.0, 2.0), X, [1, 1, 0, 0]),
        (In("x", (1.0, 0.0)), X, [1, 0, 0, 1]),
        (In("x", (1.0, 0.0), negated=True), X, [0, 1, 0, 0]),
        (IsMissing("x"), X, [0, 0, 1, 0]),
        (Linear((("x", 2.0), ("x", -1.0)), Operator.GE, 1.0), X, [1, 1, 0, 0]),
        (Linear((("x", 1.0),), Operator.NE, 1.0), X, [0, 1, 0, 1]),
        (ALWAYS, X, [1, 1, 1, 1]),
        (Compare("k", Operator.EQ, "a"), KIND, [1, 0, 0, 0]),
        (Compare("k", Operator.NE, "a"), KIND, [0, 1, 0, 1]),
        (In("k", ("a", "b")), KIND, [1, 0, 0, 1]),
        (In("k", ("a",), negated=True), KIND, [0, 1, 0, 1]),
        (IsMissing("k"), KIND, [0, 0, 1, 0]),
    ],
)
def test_conditions(condition: Condition, table: dict[str, np.ndarray], expected: list[int]) -> None:
    assert holds(condition, table).astype(int).tolist() == expected


def ladder(policy: Policy, thens: list[object], **more: object) -> RuleSet:
    """Rules x > 0, x > 1, x > 2."""
    rules = [
        Rule(f"r{i}", Compare("x", Operator.GT, float(i)), then, priority=float(i), weight=(0.5, 2.0, 1.0)[i])  # type: ignore[arg-type]
        for i, then in enumerate(thens)
    ]
    return RuleSet((Column("x", ColumnType.NUMBER, missing=True),), tuple(rules), policy, **more)  # type: ignore[arg-type]


ROWS = {"x": np.array([-1.0, 0.5, 1.5, 2.5, NAN])}
ABA = [Label("a"), Label("b"), Label("a")]


@pytest.mark.parametrize(
    ("policy", "labels", "rule_id", "scores"),
    [
        (Policy.FIRST, ["", "a", "a", "a", ""], [-1, 0, 0, 0, -1], [[0, 0], [0.5, 0], [0.5, 0], [0.5, 0], [0, 0]]),
        (Policy.PRIORITY, ["", "a", "b", "a", ""], [-1, 0, 1, 2, -1], [[0, 0], [0.5, 0], [0, 2], [1, 0], [0, 0]]),
        (Policy.VOTE, ["", "a", "b", "b", ""], [-1, 0, 1, 1, -1], [[0, 0], [0.5, 0], [0.5, 2], [1.5, 2], [0, 0]]),
        (Policy.COLLECT, ["", "a", "a", "a", ""], [-1, 0, 0, 0, -1], [[0, 0], [1, 0], [1, 1], [2, 1], [0, 0]]),
    ],
)
def test_policies(policy: Policy, labels: list[str], rule_id: list[int], scores: list[list[float]]) -> None:
    result = evaluate(ladder(policy, ABA), ROWS)
    assert result.result.tolist() == labels
    assert result.rule_id.tolist() == rule_id
    assert result.scores.tolist() == scores


def test_default_and_base() -> None:
    result = evaluate(ladder(Policy.FIRST, ABA, default=Label("c")), ROWS)
    assert result.result.tolist() == ["c", "a", "a", "a", "c"] and result.scores[0].tolist() == [0, 0, 1]
    result = evaluate(ladder(Policy.VOTE, ABA, base=(("b", 1.0), ("a", 0.6))), ROWS)
    assert result.result.tolist() == ["b", "a", "b", "b", "b"]
    assert result.rule_id.tolist() == [-1, 0, 1, 1, -1]


def test_scores_are_added_in_order_and_clamped() -> None:
    values = [Number(0.1), LinearScore(0.2, (("x", -1.0),)), Number(-5.0)]
    rules = ladder(Policy.SCORE, values, default=Number(0.3))
    result = evaluate(rules, ROWS)
    assert result.result.tolist() == [0.3, 0.3 + 0.1, 0.3 + 0.1 + (0.2 - 1.5), 0.3 + 0.1 + (0.2 - 2.5) + -5.0, 0.3]
    assert result.rule_id.tolist() == [-1, 0, 1, 2, -1]
    clamped = from_yaml(
        "columns: {x: number}\npolicy: score\nconstraints: [{clamp: [0, 2]}]\n"
        "rules: [{when: x > 0, then: {linear: {x: 1}}}]"
    )
    result = evaluate(clamped, {"x": np.array([-1.0, 1.0, 5.0])})
    assert result.result.tolist() == [0, 1, 2] and result.scores[:, 0].tolist() == [0, 1, 5]


def test_numbers_of_labels_stay_numbers() -> None:
    result = evaluate(ladder(Policy.FIRST, [Label(2), Label(0), Label(1)]), ROWS)
    assert result.result.dtype == np.int64 and result.result.tolist() == [-1, 2, 2, 2, -1]


def test_blocks_of_rows_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = ladder(Policy.VOTE, ABA)
    whole = evaluate(rules, ROWS)
    monkeypatch.setattr("modelkit.rules.evaluate._CELLS", 6)
    assert evaluate(rules, ROWS).scores.tolist() == whole.scores.tolist()
    assert fires(rules, ROWS).sum() == 6


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("1970-01-02", ColumnType.DATE, 1.0),
        ("1969-12-31", ColumnType.DATE, -1.0),
        ("1970-01-01T00:01:00.5", ColumnType.DATETIME, 60.5),
        ("1970-01-01T01:00:00+01:00", ColumnType.DATETIME, 0.0),
    ],
)
def test_dates(text: str, kind: ColumnType, number: float) -> None:
    assert date_number(text, kind) == number
    assert date_number(date_text(number, kind), kind) == number


def test_rule_sets_check_themselves() -> None:
    with pytest.raises(ConfigError) as caught:
        RuleSet((Column("x", ColumnType.NUMBER),), (Rule("r", Compare("y", Operator.GT, 1.0), Number(NAN)),))
    assert caught.value.problems == [
        "rule 'r': unknown column 'y' (columns: x)",
        "rule 'r': the outcome is not a finite number",
    ]
    with pytest.raises(ValueError, match="60 deep"):
        condition: Condition = ALWAYS
        for _ in range(100):
            condition = And((condition,))


RULES = """\
columns:
  x: {type: number, range: [0, 1]}
  n: integer
  kind: {type: category, values: [a], missing: true}
  day: date
  ok: boolean
rules: [{when: ok, then: yes}]
"""


def test_values_of_all_kinds_become_a_table() -> None:
    import datetime as dt

    values = {
        "x": [0, 0.5],
        "n": np.array([1, 2]),
        "kind": [None, "a"],
        "day": [dt.date(1970, 1, 2), "1970-01-03"],
        "ok": [True, "no"],
    }
    table = as_table(from_yaml(RULES), values)
    assert [table[name].tolist() for name in values] == [[0, 0.5], [1, 2], ["", "a"], [1, 2], [1, 0]]


def test_values_that_do_not_fit_are_all_named() -> None:
    values = {"x": [0.5, 2.0], "n": [1, 1.5], "kind": ["b", "a"], "day": ["1970-01-01", None], "ok": ["maybe", True]}
    with pytest.raises(DataError) as caught:
        as_table(from_yaml(RULES), values)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "column 'x', row 1 (counted from 0) (2)",
        "column 'n', row 1 (counted from 0) (1.5)",
        "column 'kind', row 0 (counted from 0) ('b')",
        "column 'day', row 1 (counted from 0)",
        "column 'ok'",
    ]
    with pytest.raises(DataError, match="column 'n' is missing"):
        as_table(from_yaml(RULES), {"x": [1.0]})
