"""ONNX files of rules give, bit for bit, what the evaluator gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rules_random import rule_sets

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import And, Compare, Condition, Operator, Or
from modelkit.rules.evaluate import evaluate
from modelkit.rules.model import Label, LinearScore, Number, Policy, Rule, RuleSet
from modelkit.rules.onnx_build import to_onnx
from modelkit.rules.onnx_output import sums_are_exact
from modelkit.rules.samples import boundary_rows, random_rows
from modelkit.rules.table import table_of
from modelkit.rules.verify import first_difference, run_rules
from modelkit.runtime import make_session

SLOW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def assert_agrees(rules: RuleSet, *tables: dict[str, np.ndarray]) -> None:
    session = make_session(to_onnx(rules).SerializeToString())
    for table in tables:
        expected = evaluate(rules, table)
        found = run_rules(session, rules, table)
        row = first_difference(expected, found)
        assert row is None, f"{ {name: values[row] for name, values in table.items()} }: {expected} {found}"
        assert found.result.dtype == expected.result.dtype and found.scores.shape == expected.scores.shape


@SLOW
@given(rule_sets(), st.integers(0, 1000))
def test_agrees_on_boundary_and_random_rows(rules: RuleSet, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = [random_rows(rules, 200, rng, declared=declared) for declared in (True, False)]
    assert_agrees(rules, boundary_rows(rules, rng, declared=False), *tables)


def many(count: int, policy: Policy, outcome: object, seed: int = 0) -> RuleSet:
    rng = np.random.default_rng(seed)
    cols = tuple(Column(f"x{i}", ColumnType.NUMBER, missing=True) for i in range(4))
    rules = []
    for i in range(count):
        terms: list[Condition] = []
        for column in rng.choice(4, 2, replace=False):
            low, width = np.round(rng.random(2), 3)
            inside = (Compare(f"x{column}", Operator.GT, low), Compare(f"x{column}", Operator.LE, low + width / 2))
            terms += inside if i % 5 else (Or(inside),)
        then = outcome(rng) if callable(outcome) else outcome
        rules.append(Rule(f"r{i}", And(tuple(terms)), then, weight=float(np.round(rng.random(), 2))))
    return RuleSet(cols, tuple(rules), policy)


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        (Policy.FIRST, lambda rng: Label("abc"[rng.integers(3)])),
        (Policy.VOTE, lambda rng: Label(int(rng.integers(3)))),
        (Policy.SCORE, lambda rng: Number(float(np.round(rng.normal(), 3)))),
        (Policy.COLLECT, lambda rng: Label("abc"[rng.integers(3)])),
    ],
)
def test_agrees_with_more_rules_than_fit_into_a_group(policy: Policy, outcome: object) -> None:
    rules = many(1300, policy, outcome)
    rng = np.random.default_rng(1)
    assert_agrees(
        rules, random_rows(rules, 2000, rng, declared=False), boundary_rows(rules, rng, declared=False, limit=2000)
    )


def test_condition_of_many_boxes_is_computed_by_operators() -> None:
    cols = tuple(Column(f"x{i}", ColumnType.NUMBER) for i in range(12))
    pairs = [
        Or((Compare(f"x{i}", Operator.GT, 0.5), Compare(f"x{i + 1}", Operator.LT, 0.2))) for i in range(0, 12, 2)
    ]
    rules = RuleSet(cols, (Rule("all", And(tuple(pairs)), Label("yes")),), default=Label("no"))
    assert_agrees(rules, random_rows(rules, 5000, np.random.default_rng(0), declared=True))


def test_rows_at_a_threshold_that_float_would_round() -> None:
    third = 1 / 3
    cols = (Column("x", ColumnType.NUMBER),)
    rules = RuleSet(cols, (Rule("r", Compare("x", Operator.LE, third), Label("in")),), default=Label("out"))
    rows = [{"x": x} for x in (np.nextafter(third, 0), third, np.nextafter(third, 1), float(np.float32(third)))]
    assert_agrees(rules, table_of(rules, rows))
    assert evaluate(rules, table_of(rules, rows)).result.tolist() == ["in", "in", "out", "out"]


def test_names_of_columns_may_be_those_of_inner_values() -> None:
    cols = tuple(Column(name, ColumnType.NUMBER) for name in ("/v0", "/c0", "//"))
    rules = RuleSet(cols, (Rule("r", Compare("/v0", Operator.LE, 1.0), Label("a")),), default=Label("b"))
    assert_agrees(rules, random_rows(rules, 50, np.random.default_rng(0), declared=True))


def test_the_same_rules_give_the_same_bytes() -> None:
    rules = many(50, Policy.VOTE, lambda rng: Label(int(rng.integers(3))))
    first, second = (to_onnx(rules).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("values", "exact"),
    [([1.0, 2.0, -3.0], True), ([0.5, 0.25], True), ([0.1, 0.2], False), ([2.0**53, 1.0], False), ([], True)],
)
def test_sums_are_exact(values: list[float], exact: bool) -> None:
    assert sums_are_exact(values) is exact


def test_labels_that_no_rule_gives_have_a_column_of_scores() -> None:
    cols = (Column("x", ColumnType.NUMBER),)
    rules = tuple(Rule(f"r{i}", Compare("x", Operator.GT, i / 10), Label("b"), weight=0.1 * i) for i in range(1, 5))
    labels = ("a", "b", "c")
    for base in ((), (("c", 0.3),)):
        voted = RuleSet(cols, rules, Policy.VOTE, labels=labels, base=base)
        assert_agrees(voted, random_rows(voted, 100, np.random.default_rng(0), declared=True))
    assert_agrees(
        RuleSet(cols, rules, labels=labels), random_rows(voted, 100, np.random.default_rng(0), declared=True)
    )


@pytest.mark.parametrize("policy", [Policy.FIRST, Policy.VOTE, Policy.SCORE, Policy.COLLECT])
def test_no_rows_give_no_rows(policy: Policy) -> None:
    rules = many(70, policy, Number(0.3) if policy is Policy.SCORE else Label("a"))
    assert_agrees(rules, random_rows(rules, 0, np.random.default_rng(0), declared=False))


def test_only_the_default_of_a_sum_is_a_linear_score() -> None:
    rules = replace(many(70, Policy.SCORE, Number(0.3)), default=LinearScore(0.1, (("x0", 0.7), ("x2", -1.3))))
    assert_agrees(rules, random_rows(rules, 500, np.random.default_rng(0), declared=False))
