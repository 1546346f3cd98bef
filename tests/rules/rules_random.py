"""Random rule sets for property tests: every type, condition, outcome and policy."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import And, Between, Compare, Condition, In, IsMissing, Linear, Not, Operator, Or
from modelkit.rules.model import (
    Action,
    Bound,
    Clamp,
    Forbid,
    Label,
    LinearScore,
    Monotone,
    Number,
    Policy,
    Require,
    Rule,
    RuleSet,
)

NUMBERS = (-1.5, -0.1, 0.0, 0.1, 0.3, 1.0, 2.0, 2.5)
TEXTS = ("a", "b c", "and", "d'\"`\\")


@st.composite
def columns(draw: st.DrawFn, most: int = 5) -> tuple[Column, ...]:
    kinds = draw(st.lists(st.sampled_from(list(ColumnType)), min_size=1, max_size=most))
    found = []
    for i, kind in enumerate(kinds):
        missing = draw(st.booleans())
        name = draw(st.sampled_from([f"x{i}", f"the {i}th", f"or{i}"]))
        if kind is ColumnType.CATEGORY:
            values = TEXTS[: draw(st.integers(1, len(TEXTS)))]
            found.append(Column(name, kind, values=values, other=draw(st.booleans()), missing=missing))
        elif kind is ColumnType.BOOLEAN:
            found.append(Column(name, kind, missing=missing))
        else:
            low, high = draw(st.sampled_from([(None, None), (-1.0, 2.0), (None, 2.0), (0.0, None)]))
            found.append(Column(name, kind, low, high, missing=missing))
    return tuple(found)


def value(draw: st.DrawFn, column: Column) -> Any:
    if column.type.is_text:
        return draw(st.sampled_from(column.values))
    if column.type is ColumnType.BOOLEAN:
        return draw(st.sampled_from([0.0, 1.0]))
    if column.type.is_whole:
        return float(draw(st.integers(-2, 3)))
    return draw(st.sampled_from(NUMBERS))


@st.composite
def conditions(draw: st.DrawFn, cols: tuple[Column, ...], *, linear: bool = True, depth: int = 3) -> Condition:
    if depth and draw(st.integers(0, 2)):
        kind = draw(st.sampled_from([And, Or, Not]))
        inner = conditions(cols, linear=linear, depth=depth - 1)
        if kind is Not:
            return Not(draw(inner))
        return kind(tuple(draw(st.lists(inner, min_size=0 if depth == 1 else 1, max_size=3))))
    column = draw(st.sampled_from(cols))
    numeric = [c.name for c in cols if not c.type.is_text]
    kinds = ["compare", "in", "missing", *(["between"] if column.type.is_ordered else [])]
    kind = draw(st.sampled_from([*kinds, *(["linear"] if linear and numeric else [])]))
    if kind == "linear":
        names = draw(st.lists(st.sampled_from(numeric), min_size=1, max_size=3))
        terms = tuple((name, draw(st.sampled_from([-2.0, -0.1, 0.7, 1.0]))) for name in names)
        return Linear(terms, draw(st.sampled_from(list(Operator))), draw(st.sampled_from(NUMBERS)))
    if kind == "missing":
        return IsMissing(column.name)
    if kind == "in":
        values = tuple(value(draw, column) for _ in range(draw(st.integers(1, 3))))
        return In(column.name, values, negated=draw(st.booleans()))
    if kind == "between":
        return Between(column.name, *sorted((value(draw, column), value(draw, column))))
    ops = list(Operator) if column.type.is_ordered else [Operator.EQ, Operator.NE]
    return Compare(column.name, draw(st.sampled_from(ops)), value(draw, column))


def outcome(draw: st.DrawFn, cols: tuple[Column, ...], policy: Policy, kind: str) -> Any:
    numeric = [c.name for c in cols if not c.type.is_text]
    if kind == "label":
        return Label(draw(st.sampled_from(["yes", "no", "it depends"])))
    if kind == "class":
        return Label(draw(st.integers(0, 2)))
    if kind == "action":
        return Action(draw(st.sampled_from(["call", "write", "wait"])))
    if kind == "linear" and numeric and draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(numeric), min_size=0, max_size=3))
        terms = tuple((name, draw(st.sampled_from([-1.1, 0.3, 2.0]))) for name in names) or ((numeric[0], 0.1),)
        return LinearScore(draw(st.sampled_from(NUMBERS)), terms)
    return Number(draw(st.sampled_from(NUMBERS)))


@st.composite
def rule_sets(
    draw: st.DrawFn, *, linear: bool = True, most: int = 8, most_columns: int = 5, policies: Any = tuple(Policy)
) -> RuleSet:
    """A rule set; without ``linear`` all conditions are comparisons and all outcomes constant."""
    cols = draw(columns(most_columns))
    cols = tuple({c.name: c for c in cols}.values())
    policy = draw(st.sampled_from(list(policies)))
    kinds = {Policy.SCORE: ["number", "linear"], Policy.COLLECT: ["action", "label"], Policy.VOTE: ["label", "class"]}
    kind = draw(st.sampled_from(kinds.get(policy, ["label", "class", "action", "number", "linear"])))
    kind = "number" if kind == "linear" and not linear else kind
    rules = []
    for i in range(draw(st.integers(1, most))):
        when = draw(conditions(cols, linear=linear))
        weight = draw(st.sampled_from([1.0, 0.1, 0.7, -0.3])) if kind in ("label", "class") else 1.0
        priority = float(draw(st.integers(0, 2)))
        rules.append(Rule(f"r{i}", when, outcome(draw, cols, policy, kind), priority, weight))
    default = outcome(draw, cols, policy, kind) if draw(st.booleans()) else None
    base, clamp, claims = (), None, ()
    classes = tuple(dict.fromkeys(r.then.value for r in rules if isinstance(r.then, Label)))
    if policy is Policy.VOTE and draw(st.booleans()):
        base = tuple((label, draw(st.sampled_from([0.0, 0.25, 0.1]))) for label in classes[:2])
    if kind in ("number", "linear"):
        clamp = draw(st.sampled_from([None, Clamp(0.05, 1.0), Clamp(None, 0.5)]))
        claims = (
            Bound(
                *draw(st.sampled_from([(0.0, None), (None, 1.0), (0.05, 1.0)])), draw(conditions(cols, linear=linear))
            ),
        )
    elif classes:
        kind_ = draw(st.sampled_from([Forbid, Require]))
        claims = (kind_((classes[0],), draw(conditions(cols, linear=linear))),)
    ordered = [c.name for c in cols if c.type.is_ordered]
    if ordered:
        label = classes[0] if classes else None
        if classes or kind in ("number", "linear"):
            claims = (*claims, Monotone(ordered[0], draw(st.booleans()), label))
    return RuleSet(cols, tuple(rules), policy, default, (), base, clamp, claims)
