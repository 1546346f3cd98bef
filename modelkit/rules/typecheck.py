"""What does not fit together between conditions and columns, in words: unknown names, wrong kinds of values."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

from modelkit.rules.columns import MAX_EXACT, Column, Value
from modelkit.rules.conditions import Atom, Between, Compare, Condition, In, Linear, atoms


def near(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` where a known name is like this one; else nothing."""
    lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower()[:200], lower, n=1)
    return f" (did you mean '{lower[found[0]]}'?)" if found else ""


def unknown_column(name: str, columns: Mapping[str, Column]) -> str:
    """The problem of a name that is no column."""
    advice = near(name, columns)
    if not advice and len(columns) <= 12:
        advice = f" (columns: {', '.join(columns)})"
    return f"unknown column '{name}'{advice}"


def condition_problems(condition: Condition, columns: Mapping[str, Column]) -> list[str]:
    """Everything in a condition that does not fit the columns, a line each."""
    found: list[str] = []
    for atom in atoms(condition):
        found += atom_problems(atom, columns)
    return list(dict.fromkeys(found))


def atom_problems(atom: Atom, columns: Mapping[str, Column]) -> list[str]:
    """What does not fit in one comparison."""
    if isinstance(atom, Linear):
        return linear_problems(atom.terms, atom.bound, columns)
    column = columns.get(atom.column)
    if column is None:
        return [unknown_column(atom.column, columns)]
    if isinstance(atom, Compare):
        if atom.op.needs_order and not column.type.is_ordered:
            return [f"'{atom.op}' needs numbers or dates; column '{column.name}' is a {column.type}"]
        return value_problems(column, (atom.value,))
    if isinstance(atom, Between):
        if not column.type.is_ordered:
            return [f"'between' needs numbers or dates; column '{column.name}' is a {column.type}"]
        return value_problems(column, (atom.low, atom.high))
    if isinstance(atom, In):
        return value_problems(column, atom.values)
    return []


def linear_problems(
    terms: tuple[tuple[str, float], ...], constant: float, columns: Mapping[str, Column]
) -> list[str]:
    """What does not fit in a sum of coefficients times columns."""
    found = [] if terms else ["a sum needs at least one column"]
    for name, coefficient in terms:
        if name not in columns:
            found.append(unknown_column(name, columns))
        elif columns[name].type.is_text:
            found.append(f"column '{name}' is a category; a sum needs numbers")
        if not math.isfinite(coefficient):
            found.append(f"the coefficient of '{name}' is not a finite number")
    if not math.isfinite(constant):
        found.append("a sum is compared with something that is not a finite number")
    return found


def value_problems(column: Column, values: Iterable[Value]) -> list[str]:
    """What does not fit between a column and the values that it is compared with."""
    found = []
    for value in values:
        if isinstance(value, str) != column.type.is_text:
            kind = "text" if isinstance(value, str) else "a number"
            shown = f"'{value}'" if isinstance(value, str) else f"{value:g}"
            found.append(f"column '{column.name}' is a {column.type} and is compared with {kind}, {shown}")
        elif isinstance(value, str):
            if value not in column.values:
                known = near(value, column.values) or f" (values: {', '.join(column.values[:12])})"
                found.append(f"'{value}' is not a declared value of column '{column.name}'{known}")
        elif not math.isfinite(value):
            found.append(f"column '{column.name}' is compared with {value}, which is not a finite number")
        elif column.type.is_whole and abs(value) > MAX_EXACT:
            found.append(f"column '{column.name}': {value:g} is beyond 2**53, where doubles skip whole numbers")
    return found
