"""Conditions and values as the text of the language; `modelkit.rules.language` reads it back to the same."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from modelkit.rules.columns import Column, ColumnType, Value, date_text, number_text
from modelkit.rules.conditions import (
    And,
    Between,
    Compare,
    Condition,
    In,
    IsMissing,
    Linear,
    Not,
    Or,
)

RESERVED = frozenset(
    {"and", "or", "not", "in", "is", "missing", "between", "any", "all", "of", "true", "false", "always", "never"}
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def name_text(name: str) -> str:
    """A name as the language takes it: quoted in backticks where it is no plain word."""
    if _NAME.match(name) and name.lower() not in RESERVED:
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def string_text(text: str) -> str:
    """A text value as the language takes it: quoted where it is no plain word."""
    if _NAME.match(text) and text.lower() not in RESERVED:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def value_text(value: Value, column: Column) -> str:
    """A value of a column as the language takes it."""
    if isinstance(value, str):
        return string_text(value)
    if column.type is ColumnType.BOOLEAN and value in (0.0, 1.0):
        return "true" if value else "false"
    if column.type in (ColumnType.DATE, ColumnType.DATETIME):
        return date_text(value, column.type)
    return number_text(value)


def condition_text(condition: Condition, columns: Mapping[str, Column]) -> str:
    """The condition on one line; reading it gives the same condition back.

    Args:
        condition: The condition.
        columns: Columns by name (`RuleSet.column`).
    """
    if isinstance(condition, And | Or):
        if not condition.terms:
            return "always" if isinstance(condition, And) else "never"
        parts = [_inner(term, columns) for term in condition.terms]
        if len(parts) == 1:
            return f"all of ({parts[0]})" if isinstance(condition, And) else f"any of ({parts[0]})"
        return (" and " if isinstance(condition, And) else " or ").join(parts)
    if isinstance(condition, Not):
        return f"not ({condition_text(condition.term, columns)})"
    if isinstance(condition, Linear):
        return f"{sum_text(condition.terms)} {condition.op} {number_text(condition.bound)}"
    column = columns[condition.column]
    name = name_text(column.name)
    if isinstance(condition, IsMissing):
        return f"{name} is missing"
    if isinstance(condition, Between):
        return f"{name} between {value_text(condition.low, column)} and {value_text(condition.high, column)}"
    if isinstance(condition, In):
        values = ", ".join(value_text(value, column) for value in condition.values)
        return f"{name} {'not in' if condition.negated else 'in'} [{values}]"
    assert isinstance(condition, Compare)
    return f"{name} {condition.op} {value_text(condition.value, column)}"


def _inner(condition: Condition, columns: Mapping[str, Column]) -> str:
    """A condition among others: in brackets where it joins several."""
    text = condition_text(condition, columns)
    return f"({text})" if isinstance(condition, And | Or) and len(condition.terms) > 1 else text


def sum_text(terms: tuple[tuple[str, float], ...]) -> str:
    """A weighted sum as the language takes it: ``2 * a - 0.5 * b``."""
    text = ""
    for name, coefficient in terms:
        minus = math.copysign(1.0, coefficient) < 0
        sign = (" - " if minus else " + ") if text else ("-" if minus else "")
        text += f"{sign}{number_text(abs(coefficient))} * {name_text(name)}"
    return text
