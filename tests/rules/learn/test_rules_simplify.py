"""Simplified and merged rules give the same results on every row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import Compare, In, IsMissing, Not, Operator, all_of
from modelkit.rules.evaluate import evaluate, holds
from modelkit.rules.learn.compose import merged, size
from modelkit.rules.learn.simplify import simplified
from modelkit.rules.model import Label, Policy, Rule, RuleSet

COLUMNS = (
    Column("x", ColumnType.NUMBER, missing=True),
    Column("n", ColumnType.INTEGER),
    Column("g", ColumnType.CATEGORY, values=("a", "b", "c"), missing=True),
    Column("h", ColumnType.CATEGORY, values=("a", "b"), other=True),
)
BOUNDS = st.sampled_from([0.0, 1.0, 2.0])
NUMBERS = st.builds(Compare, st.sampled_from(["x", "n"]), st.sampled_from([Operator.LE, Operator.GT]), BOUNDS)
TEXTS = st.builds(
    Compare, st.sampled_from(["g", "h"]), st.sampled_from([Operator.EQ, Operator.NE]), st.sampled_from(["a", "b"])
)
GROUPS = st.sampled_from([In("g", ("a", "b")), In("g", ("b", "c")), In("h", ("a", "b"))])
MISSING = st.sampled_from([IsMissing("x"), Not(IsMissing("x")), IsMissing("g"), Not(IsMissing("g"))])
BOX = st.lists(st.one_of(NUMBERS, TEXTS, GROUPS, MISSING), min_size=1, max_size=4).map(tuple)


def rows() -> dict[str, np.ndarray]:
    grid = np.meshgrid(
        [np.nan, -1.0, 0.0, 0.5, 1.5, 3.0], [-1.0, 0.0, 1.0, 2.0, 3.0], range(4), range(4), indexing="ij"
    )
    x, n, g, h = (part.ravel() for part in grid)
    return {
        "x": x,
        "n": n,
        "g": np.array(["", "a", "b", "c"], object)[g.astype(int)],
        "h": np.array(["a", "b", "z", "zz"], object)[h.astype(int)],
    }


ROWS = rows()


@given(BOX)
def test_merging_bounds_changes_nothing(box):
    short = merged(box)
    assert len(short) <= len(box)
    assert (holds(all_of(*short), ROWS) == holds(all_of(*box), ROWS)).all()


@given(st.lists(st.tuples(BOX, st.sampled_from(["p", "q"])), min_size=1, max_size=5))
def test_simplifying_changes_no_result(entries):
    rules = RuleSet(
        COLUMNS,
        tuple(Rule(f"rule {i + 1}", all_of(*box), Label(then)) for i, (box, then) in enumerate(entries)),
        Policy.FIRST,
        Label("q"),
    )
    short = simplified(rules)
    assert size(short) <= size(rules)
    assert (evaluate(short, ROWS).result == evaluate(rules, ROWS).result).all()


def test_what_an_earlier_rule_takes_is_left_out():
    low, high = Compare("n", Operator.LE, 1.0), Compare("n", Operator.GT, 1.0)
    rules = RuleSet(
        COLUMNS,
        (
            Rule("rule 1", low, Label("p")),
            Rule("rule 2", all_of(high, Compare("x", Operator.GT, 0.0)), Label("q")),
            Rule("rule 3", all_of(low, Compare("x", Operator.GT, 2.0)), Label("q")),
        ),
        Policy.FIRST,
        Label("r"),
    )
    assert [rule.when for rule in simplified(rules).rules] == [low, Compare("x", Operator.GT, 0.0)]
