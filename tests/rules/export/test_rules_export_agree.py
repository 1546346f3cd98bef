"""ONNX, Python and SQL give exactly what the evaluator gives, on all boundary rows and on random ones."""

from __future__ import annotations

import itertools
import math
import sqlite3
import struct
from typing import Any

import numpy as np
import pytest
from agree import DIFFERENCES, module_of, python_differences, sql_differences
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rule_sets import rule_sets

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import And, Compare, Linear, Not, Operator, Or
from modelkit.rules.evaluate import evaluate
from modelkit.rules.export.errors import ExportError
from modelkit.rules.export.sql import to_sql
from modelkit.rules.export.sql_literals import double
from modelkit.rules.model import Label, LinearScore, Number, Policy, Rule, RuleSet
from modelkit.rules.samples import boundary_rows, random_rows
from modelkit.rules.table import table_of

_X = (Column("x", ColumnType.NUMBER, missing=True),)


def rows(rules: RuleSet, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    at, free = boundary_rows(rules, rng, declared=False), random_rows(rules, 40, rng, declared=False)
    return {name: np.concatenate([at[name], free[name]]) for name in at}


@pytest.mark.parametrize("form", DIFFERENCES)
@given(rules=rule_sets(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_agrees(form: str, rules: RuleSet, seed: int) -> None:
    assert not list(DIFFERENCES[form](rules, rows(rules, seed)))[:3]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=200))
@settings(deadline=None)
def test_sqlite_reads_every_double_as_it_is(values: list[float]) -> None:
    got = sqlite3.connect(":memory:").execute(f"SELECT {', '.join(map(double, values))}").fetchone()
    assert [struct.pack("<d", value + 0.0) for value in got] == [struct.pack("<d", value + 0.0) for value in values]


def test_a_decimal_that_sqlite_may_read_wrongly_is_a_quotient() -> None:
    assert double(2.45) == "2.45"
    assert double(96.059666) == "(6759598062545849 / 70368744177664.0)"
    assert double(-(2.0**60)) == "(-1 * 4503599627370496.0 * 256.0)"
    assert double(1 / 3) == "(6004799503160661 / 4503599627370496.0 / 4.0)"


def many(count: int, policy: Policy) -> RuleSet:
    rng = np.random.default_rng(3)
    rules = []
    for index in range(count):
        threshold = float(np.round(rng.normal(), 3))
        then = Number(float(np.round(rng.normal(), 3))) if policy is Policy.SCORE else Label(f"c{index % 3}")
        when = Compare("x", Operator.LE if index % 2 else Operator.GT, threshold)
        rules.append(Rule(f"r{index}", when, then, weight=float(np.round(rng.random(), 3))))
    return RuleSet(_X, tuple(rules), policy)


@pytest.mark.parametrize("policy", [Policy.FIRST, Policy.VOTE, Policy.SCORE, Policy.COLLECT])
def test_agrees_with_thousands_of_rules(policy: Policy) -> None:
    rules = many(2500, policy)
    table = random_rows(rules, 30, np.random.default_rng(0), declared=False)
    assert not list(python_differences(rules, table))[:1]
    assert not list(sql_differences(rules, table))[:1]


def test_agrees_where_conditions_and_sums_are_long() -> None:
    columns = tuple(Column(f"x{i}", ColumnType.NUMBER) for i in range(300))
    terms = tuple((column.name, 0.1 * (i % 7)) for i, column in enumerate(columns))
    wide = tuple(Compare(column.name, Operator.GT, 0.5) for column in columns)
    rules = RuleSet(
        columns,
        (
            Rule("sum", Linear(terms, Operator.GT, 40.0), LinearScore(0.1, terms)),
            Rule("all", And(wide), Number(1.0)),
            Rule("any", Or(wide * 10), Number(2.0)),
        ),
        Policy.SCORE,
    )
    table = {column.name: np.random.default_rng(i).random(20) for i, column in enumerate(columns)}
    assert not list(python_differences(rules, table))
    assert not list(sql_differences(rules, table))


@pytest.mark.parametrize("form", DIFFERENCES)
@pytest.mark.parametrize(("outer", "middle", "inner"), list(itertools.product((And, Or), repeat=3)))
def test_brackets_hold_through_conditions_of_one_term(form: str, outer: Any, middle: Any, inner: Any) -> None:
    columns = tuple(Column(name, ColumnType.BOOLEAN, missing=True) for name in "abc")
    a, b, c = (Compare(column.name, Operator.EQ, 1.0) for column in columns)
    condition = outer((middle((inner((a, b)),)), middle((c,))))
    rules = RuleSet(columns, (Rule("r", condition, Label("x")), Rule("n", Not(condition), Label("y"))))
    values = [dict(zip("abc", each, strict=True)) for each in itertools.product((0.0, 1.0, math.nan), repeat=3)]
    assert not list(DIFFERENCES[form](rules, table_of(rules, values)))


def test_a_sum_that_sqlite_would_not_parse_is_refused() -> None:
    columns = tuple(Column(f"x{i}", ColumnType.NUMBER) for i in range(500))
    sum_ = Linear(tuple((column.name, 1.0) for column in columns), Operator.GT, 0.0)
    rules = RuleSet(columns, (Rule("r", sum_, Label("a")),))
    with pytest.raises(ExportError, match="nested too deep"):
        to_sql(rules)


def test_columns_that_differ_in_case_only_are_refused_by_sql() -> None:
    columns = (Column("x", ColumnType.NUMBER), Column("X", ColumnType.NUMBER))
    rules = RuleSet(columns, (Rule("r", Compare("x", Operator.GT, 0.0), Label("a")),))
    with pytest.raises(ExportError, match="upper case"):
        to_sql(rules)
    assert not list(python_differences(rules, random_rows(rules, 50, np.random.default_rng(0), declared=False)))


def test_a_column_that_the_table_lacks_is_an_error_not_a_text() -> None:
    rules = RuleSet(_X, (Rule("r", Compare("x", Operator.NE, 0.0), Label("a")),))
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE input (y REAL)")
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        base.execute(to_sql(rules))


def test_python_takes_what_people_write() -> None:
    columns = (
        Column("day", ColumnType.DATE),
        Column("at", ColumnType.DATETIME),
        Column("member", ColumnType.BOOLEAN),
        Column("kind", ColumnType.CATEGORY, values=("a",), missing=True),
    )
    day = Compare("day", Operator.EQ, 19_782.0)
    moment = Compare("at", Operator.EQ, 1_709_209_800.0)
    when = And((day, moment, Compare("member", Operator.EQ, 1.0), Compare("kind", Operator.EQ, "a")))
    rules = RuleSet(columns, (Rule("r", when, Label("yes")),), default=Label("no"))
    decide = module_of(rules)["decide"]
    row = {"day": "2024-02-29", "at": "2024-02-29T12:30:00Z", "member": "true", "kind": "a"}
    assert decide(row).label == "yes"
    assert decide({**row, "member": False}).label == "no"
    assert decide({**row, "kind": None}).label == "no"
    with pytest.raises(KeyError, match="kind"):
        decide({"day": "2024-02-29", "at": "", "member": ""})
    table = table_of(rules, [{"day": 19_782.0, "at": 1_709_209_800.0, "member": 1.0, "kind": "a"}])
    assert evaluate(rules, table).result.tolist() == ["yes"]
