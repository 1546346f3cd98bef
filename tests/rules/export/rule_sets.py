"""Random rule sets with every kind of condition, outcome and policy, and rows on all their boundaries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import (
    ALWAYS,
    NEVER,
    And,
    Between,
    Compare,
    Condition,
    In,
    IsMissing,
    Linear,
    Not,
    Operator,
    Or,
)
from modelkit.rules.model import Action, Clamp, Label, LinearScore, Number, Outcome, Policy, Rule, RuleSet

HOSTILE = (
    "a",
    "\nb\r\n",
    "it's",
    'say "x"',
    "'); DROP TABLE t; --",
    "<&>]]>",
    "a|b`c\n\t",
    "\\N{BULLET}",
    "ä 漢 \u202e",
    "${x}",
)
NAMES = ("age", "Income per year", "t", "RULE_ID", 'a"b', "x'y", "class", "<z/>", "Label", "ünï", "`q`", "1st")
_NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 0.3, 1.0, 2.45, -1.5, 96.059666, 1e-300, 5e-324, 1e300, -7.25, 1 / 3]),
    st.floats(-100, 100),
    st.decimals(-100, 100, allow_nan=False, places=3).map(float),
)
_SMALL = st.one_of(st.integers(-5, 5).map(float), st.floats(-4, 4), st.sampled_from([0.1, 0.2, 0.3]))
_WHOLE = {
    ColumnType.BOOLEAN: st.sampled_from([0.0, 1.0]),
    ColumnType.INTEGER: st.integers(-6, 6).map(float),
    ColumnType.DATE: st.integers(19_000, 19_010).map(float),
    ColumnType.DATETIME: st.integers(1_700_000_000, 1_700_000_009).map(float),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, ...]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    found = []
    for name in names:
        type_ = draw(st.sampled_from([*ColumnType, ColumnType.NUMBER]))
        values = (
            draw(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4, unique=True)) if type_.is_text else ()
        )
        found.append(Column(name, type_, values=tuple(values), other=type_.is_text, missing=draw(st.booleans())))
    return tuple(found)


@st.composite
def _atom(draw: st.DrawFn, given: tuple[Column, ...]) -> Condition:
    column = draw(st.sampled_from(given))
    numbers = [each.name for each in given if not each.type.is_text]
    kinds = ["compare", "in", "missing"]
    kinds += ["between"] if column.type.is_ordered else []
    kinds += ["linear"] if numbers else []
    kind = draw(st.sampled_from(kinds))
    value: Any = st.sampled_from(column.values) if column.type.is_text else _WHOLE.get(column.type, _NUMBERS)
    if kind == "missing":
        return IsMissing(column.name)
    if kind == "in":
        return In(column.name, tuple(draw(st.lists(value, min_size=0, max_size=3))), draw(st.booleans()))
    if kind == "between":
        return Between(column.name, draw(value), draw(value))
    operators = list(Operator) if kind == "linear" or column.type.is_ordered else [Operator.EQ, Operator.NE]
    op = draw(st.sampled_from(operators))
    if kind == "linear":
        return Linear(draw(_terms(numbers)), op, draw(_SMALL))
    return Compare(column.name, op, draw(value))


def _terms(numbers: list[str]) -> st.SearchStrategy[tuple[tuple[str, float], ...]]:
    return st.lists(st.tuples(st.sampled_from(numbers), _SMALL), min_size=1, max_size=3).map(tuple)


@st.composite
def conditions(draw: st.DrawFn, given: tuple[Column, ...], depth: int = 3) -> Condition:
    kind = draw(st.sampled_from(["atom", "atom", "and", "or", "not"])) if depth else "atom"
    if kind == "atom":
        return draw(_atom(given) if draw(st.integers(0, 9)) else st.sampled_from([ALWAYS, NEVER]))
    inner = conditions(given, depth - 1)
    if kind == "not":
        return Not(draw(inner))
    terms = tuple(draw(inner) for _ in range(draw(st.integers(1, 3))))
    return And(terms) if kind == "and" else Or(terms)


def _outcomes(kind: str, given: tuple[Column, ...]) -> st.SearchStrategy[Outcome]:
    numbers = [column.name for column in given if not column.type.is_text]
    if kind == "text":
        return st.sampled_from(HOSTILE).map(Label)
    if kind == "whole":
        return st.integers(0, 4).map(Label)
    if kind == "action":
        return st.sampled_from(HOSTILE).map(Action)
    constant = _SMALL.map(Number)
    return st.one_of(constant, st.builds(LinearScore, _SMALL, _terms(numbers))) if numbers else constant


@st.composite
def rule_sets(draw: st.DrawFn, *, max_rules: int = 6) -> RuleSet:
    given = draw(columns())
    policy = draw(st.sampled_from(Policy))
    kinds = ["text", "whole", "action", "number"]
    if policy is Policy.SCORE:
        kinds = ["number"]
    elif policy in (Policy.VOTE, Policy.COLLECT):
        kinds.remove("number")
    outcome = _outcomes(draw(st.sampled_from(kinds)), given)
    rules = tuple(
        Rule(
            f"{draw(st.sampled_from(HOSTILE))} {i}",
            draw(conditions(given)),
            draw(outcome),
            priority=draw(st.integers(-1, 1).map(float)),
            weight=draw(st.sampled_from([1.0, 0.5, 0.1, 0.3, -0.2, 2.0])),
        )
        for i in range(draw(st.integers(1, max_rules)))
    )
    default = draw(st.none() | outcome)
    made = RuleSet(given, rules, policy, default, name=draw(st.sampled_from(HOSTILE)))
    if made.is_numeric:
        low = draw(st.none() | st.just(-1.0))
        clamp = draw(st.none() | st.just(Clamp(low, draw(st.none() | st.just(2.5)))))
        return RuleSet(given, rules, policy, default, clamp=clamp)
    if policy is Policy.VOTE and draw(st.booleans()):
        base = tuple((label, draw(_SMALL)) for label in made.classes)
        return RuleSet(given, rules, policy, default, base=base)
    return made


def python_rows(table: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Rows as Python values: None for missing numbers, "" for missing text."""
    names = list(table)
    columns_ = [[None if isinstance(v, float) and math.isnan(v) else v for v in table[n].tolist()] for n in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns_, strict=True)]
