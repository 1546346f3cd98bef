"""Conditions and weighted sums as SQL, two-valued like those of rules.

SQL's conditions have three values: a comparison with NULL is unknown, which WHEN, AND and OR take as false. Below a
NOT each comparison is therefore joined with IS NOT NULL, which makes it false there. Of categories the empty text is
missing too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelkit.rules.columns import Column
from modelkit.rules.conditions import And, Between, Compare, Condition, In, IsMissing, Linear, Not, Operator, Or
from modelkit.rules.export.errors import ExportError
from modelkit.rules.export.sql_literals import double, name, string

ROW = "t"
"""What a row is called."""

_MAX_TERMS = 400  # SQLite refuses expressions nested more than 1,000 deep
_BALANCED = 100  # terms that AND, OR and + join without brackets


class Conditions:
    """Writes conditions over the columns of the row `ROW`.

    Args:
        columns: The columns by name.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns

    def text(self, condition: Condition, *, exact: bool = False) -> str:
        """A condition as SQL.

        Args:
            condition: The condition.
            exact: Whether it must be false, not unknown, where a value is missing.
        """
        if isinstance(condition, And | Or):
            if not condition.terms:
                return "1 = 1" if isinstance(condition, And) else "1 = 0"
            word = " AND " if isinstance(condition, And) else " OR "
            return joined([self._inner(term, exact) for term in condition.terms], word)
        if isinstance(condition, Not):
            return f"NOT ({self.text(condition.term, exact=True)})"
        plain = self._atom(condition)
        if not exact or isinstance(condition, IsMissing):
            return plain
        columns = [each for each, _ in condition.terms] if isinstance(condition, Linear) else [condition.column]
        there = [f"{self.column(each)} IS NOT NULL" for each in dict.fromkeys(columns)]
        return f"({joined([*there, plain], ' AND ')})"

    def _inner(self, condition: Condition, exact: bool) -> str:
        text = self.text(condition, exact=exact)
        return f"({text})" if isinstance(condition, And | Or) and len(condition.terms) > 1 else text

    def column(self, column: str) -> str:
        """A column; with the row's name, as SQLite takes an unknown quoted name for text."""
        return f"{ROW}.{name(column)}"

    def sum(self, terms: Sequence[tuple[str, float]], start: float | None = None) -> str:
        """A weighted sum, added from left to right."""
        if len(terms) > _MAX_TERMS:
            raise ExportError("sql", f"a sum of {len(terms)} columns is nested too deep (at most {_MAX_TERMS})")
        first = [] if start is None else [double(start)]
        return " + ".join([*first, *(f"{double(factor)} * {self.column(each)}" for each, factor in terms)])

    def _atom(self, atom: Compare | Between | In | IsMissing | Linear) -> str:
        if isinstance(atom, Linear):
            return self._linear(atom)
        column = self.column(atom.column)
        if isinstance(atom, IsMissing):
            return f"({column} IS NULL OR {column} = '')" if self._is_text(atom.column) else f"{column} IS NULL"
        if isinstance(atom, Between):
            return f"{column} BETWEEN {double(atom.low)} AND {double(atom.high)}"
        if isinstance(atom, In):
            return self._in(column, atom)
        if atom.op is Operator.NE and self._is_text(atom.column):
            return self._in(column, In(atom.column, (atom.value,), negated=True))
        sign = "<>" if atom.op is Operator.NE else str(atom.op)
        return f"{column} {sign} {literal(atom.value)}"

    def _is_text(self, column: str) -> bool:
        return self._columns[column].type.is_text

    def _in(self, column: str, atom: In) -> str:
        values = [literal(value) for value in atom.values]
        if atom.negated and self._is_text(atom.column):
            values.append("''")
        if not values:
            return f"{column} IS NOT NULL" if atom.negated else "1 = 0"
        return f"{column} {'NOT IN' if atom.negated else 'IN'} ({', '.join(values)})"

    def _linear(self, atom: Linear) -> str:
        total = self.sum(atom.terms)
        if atom.op is not Operator.NE:  # a sum that is not a number is NULL: false, as with doubles
            return f"COALESCE({total} {atom.op} {double(atom.bound)}, 1 = 0)"
        there = [f"{self.column(each)} IS NOT NULL" for each in dict.fromkeys(each for each, _ in atom.terms)]
        return f"({' AND '.join(there)} AND COALESCE({total} <> {double(atom.bound)}, 1 = 1))"


def literal(value: str | float) -> str:
    """Text or a double."""
    return string(value) if isinstance(value, str) else double(value)


def joined(parts: Sequence[str], word: str) -> str:
    """Joined by AND, OR or + of whole numbers; many of them in brackets, as SQLite counts how deep they are."""
    if len(parts) <= _BALANCED:
        return word.join(parts)
    size = -(-len(parts) // _BALANCED)
    groups = [parts[i : i + size] for i in range(0, len(parts), size)]
    return word.join(f"({joined(group, word)})" if len(group) > 1 else group[0] for group in groups)
