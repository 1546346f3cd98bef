"""The language of conditions: what it means, and what it refuses at which place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_random import columns, conditions

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import (
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
from modelkit.rules.language import parse_condition
from modelkit.rules.text import condition_text

T = ColumnType
COLUMNS = {
    column.name: column
    for column in (
        Column("x", T.NUMBER),
        Column("income", T.NUMBER, missing=True),
        Column("kind", T.CATEGORY, values=("a", "b c", "and"), missing=True),
        Column("member", T.BOOLEAN),
        Column("since", T.DATE),
        Column("seen at", T.DATETIME),
        Column("android", T.NUMBER),
    )
}
GT, LT, GE, LE, EQ = Operator.GT, Operator.LT, Operator.GE, Operator.LE, Operator.EQ


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("x > 1.5", Compare("x", GT, 1.5)),
        ("3 < x", Compare("x", GT, 3.0)),
        ("x ≥ -2e-3", Compare("x", GE, -0.002)),
        ("x <> 1", Compare("x", Operator.NE, 1.0)),
        ("android == 1", Compare("android", EQ, 1.0)),
        ("x between 1 and 3", Between("x", 1.0, 3.0)),
        ("x not between 1 and 3", And((Not(Between("x", 1.0, 3.0)), Not(IsMissing("x"))))),
        ("0 <= x < 1", And((Compare("x", GE, 0.0), Compare("x", LT, 1.0)))),
        ("kind in [a, 'b c', \"and\"]", In("kind", ("a", "b c", "and"))),
        ("kind not in (a,)", In("kind", ("a",), negated=True)),
        ("kind = a", Compare("kind", EQ, "a")),
        ("kind is missing", IsMissing("kind")),
        ("kind is not missing", Not(IsMissing("kind"))),
        ("member", Compare("member", EQ, 1.0)),
        ("not member = false", Not(Compare("member", EQ, 0.0))),
        ("since >= 1970-01-11", Compare("since", GE, 10.0)),
        ("`seen at` < 1970-01-01T00:01:00", Compare("seen at", LT, 60.0)),
        ("x > income", Linear((("x", 1.0), ("income", -1.0)), GT, 0.0)),
        ("2 * x - income + 1 <= 4", Linear((("x", 2.0), ("income", -1.0)), LE, 3.0)),
        ("since - 30 > 1970-02-10", Linear((("since", 1.0),), GT, 70.0)),
        (
            "x > 1 and member or x < 0",
            Or((And((Compare("x", GT, 1.0), Compare("member", EQ, 1.0))), Compare("x", LT, 0.0))),
        ),
        (
            "x > 1 AND (member OR x < 0)",
            And((Compare("x", GT, 1.0), Or((Compare("member", EQ, 1.0), Compare("x", LT, 0.0))))),
        ),
        ("any of (x > 1, member,)", Or((Compare("x", GT, 1.0), Compare("member", EQ, 1.0)))),
        ("all of [x > 1]", And((Compare("x", GT, 1.0),))),
        ("always", And(())),
        ("never", Or(())),
    ],
)
def test_meaning(text: str, meaning: Condition) -> None:
    parsed = parse_condition(text, COLUMNS)
    assert parsed.faults == () and parsed.condition == meaning


@pytest.mark.parametrize(
    ("text", "offset", "words"),
    [
        ("xx > 1", 0, "unknown column 'xx' (did you mean 'x'?)"),
        ("x > 1 and incme < 3", 10, "did you mean 'income'"),
        ("x => 3", 2, "unknown operator '=>' (did you mean '>='?)"),
        ("x equals 3", 2, "unknown operator 'equals' (did you mean '='?)"),
        ("x > a", 4, "compared with a; a number is expected"),
        ("x > 'a'", 4, "a number is expected"),
        ("kind = 3", 7, 'quotes: "3"'),
        ("kind = c", 7, "'c' is not a declared value of column 'kind'"),
        ("kind in [a, bc]", 12, "did you mean 'b c'"),
        ("kind > a", 0, "'>' needs numbers or dates"),
        ("member > 1", 9, "true or false is expected"),
        ("x and member", 0, "column 'x' is a number; a comparison is expected"),
        ("x >", 3, "ends too early"),
        ("x > 1 x < 2", 6, "an operator is expected before 'x'"),
        ("x > 1 adn member", 6, "did you mean 'and'"),
        ("(x > 1", 6, "ends too early; ')' may follow"),
        ("x # 1", 2, "the character '#' means nothing"),
        ('kind = "a', 7, "the quote that begins here has no end"),
        ("since > 2024-02-30", 8, "is no date"),
        ("since > 2024-01-01T12:00:00", 8, "no time of day"),
        ("x > 1e999", 4, "not a finite number"),
        ("5 > 3", 0, "needs a column"),
        ("x + kind > 1", 0, "column 'kind' is a category; a sum needs numbers"),
        ("1 < x > 3", 4, "must go one way"),
        ("", 0, "empty"),
        ("not " * 100 + "member", 0, "nested more than 60 deep"),
        ("any of ()", 8, "not expected here"),
    ],
)
def test_fault(text: str, offset: int, words: str) -> None:
    parsed = parse_condition(text, COLUMNS)
    assert parsed.condition is None
    assert (parsed.faults[0].offset, words in parsed.faults[0].text) == (offset, True), parsed.faults


def test_every_fault_is_named_at_once() -> None:
    faults = parse_condition("xx > 1 and kind = c or since < 5.5 and x = true", COLUMNS).faults
    assert [fault.offset for fault in faults] == [0, 18, 43]


@pytest.mark.parametrize("text", ["(" * 5_000 + "x > 1" + ")" * 5_000, "x > 1" + " and x > 1" * 5_000])
def test_long_texts_are_read_without_recursion(text: str) -> None:
    assert parse_condition(text, COLUMNS).condition is not None


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_is_either_read_or_refused(text: str) -> None:
    parsed = parse_condition(text, COLUMNS)
    assert (parsed.condition is None) == bool(parsed.faults)
    assert all(0 <= fault.offset <= len(text) for fault in parsed.faults)


@given(
    st.lists(
        st.sampled_from(
            ["x", ">", "1", "and", "not", "(", ")", "in", "[", "]", "kind", "a", "is", "missing", ",", "-"]
        ),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_words_are_either_read_or_refused(words: list[str]) -> None:
    parsed = parse_condition(" ".join(words), COLUMNS)
    assert (parsed.condition is None) == bool(parsed.faults)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_what_is_written_is_read_back(data: st.DataObject) -> None:
    cols = tuple({column.name: column for column in data.draw(columns())}.values())
    condition = data.draw(conditions(cols))
    by_name = {column.name: column for column in cols}
    text = condition_text(condition, by_name)
    parsed = parse_condition(text, by_name)
    assert parsed.condition == condition, (text, parsed.faults)
