"""What one comparison of the language means, given the types of the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lark import Token

from modelkit.rules.columns import Column, ColumnType, Value, date_number
from modelkit.rules.conditions import NEVER, And, Between, Compare, Condition, In, IsMissing, Linear, Not, Operator
from modelkit.rules.typecheck import atom_problems, near, unknown_column, value_problems

_SPELLINGS = {
    **{str(op): op for op in Operator},
    **{"==": Operator.EQ, "<>": Operator.NE, "≤": Operator.LE, "≥": Operator.GE, "≠": Operator.NE},
}
_SLIPS = {"=<": "<=", "=>": ">=", "!": "!=", "===": "=", "!==": "!=", "=!": "!=", "><": "!=", "&": "and", "&&": "and"}


class Fault(NamedTuple):
    """Something wrong in a text: where (characters from its beginning), and what."""

    offset: int
    text: str


@dataclass(frozen=True)
class Term:
    """A term of a sum: a name or literal, or a number times a name.

    Attributes:
        token: Name or literal.
        factor: The number that a name is multiplied with, if one is written.
        sign: 1 or -1.
    """

    token: Token
    factor: Token | None = None
    sign: float = 1.0


@dataclass(frozen=True)
class Sum:
    """Terms that are added; most often just one."""

    terms: tuple[Term, ...]

    @property
    def offset(self) -> int:
        """Where it begins in the text."""
        first = self.terms[0]
        return min(int(token.start_pos or 0) for token in (first.token, first.factor) if token is not None)


def operator_of(text: str) -> Operator | str:
    """The operator that a text spells, or what is wrong with it."""
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    slip = _SLIPS.get(text)
    advice = f" (did you mean '{slip}'?)" if slip else near(text, _SPELLINGS)
    return f"unknown operator '{text}'{advice or ' (operators: = != < <= > >=)'}"


class Phrases:
    """Understands comparisons, and collects what is wrong with them.

    Args:
        columns: The columns by name.

    Attributes:
        faults: What was wrong so far.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.faults: list[Fault] = []
        self._columns = columns

    def understand(self, kind: str, parts: Sequence[Sum | Token]) -> Condition:
        """The condition of one phrase; `NEVER` where something is wrong.

        Args:
            kind: The name of the alternative in the grammar.
            parts: Sums, and operators between them.
        """
        known = len(self.faults)
        sums = [part for part in parts if isinstance(part, Sum)]
        operators = [self._operator(part) for part in parts if isinstance(part, Token)]
        if len(self.faults) > known:
            return NEVER
        condition = self._phrase(kind, sums, operators)
        return NEVER if len(self.faults) > known else condition

    def _phrase(self, kind: str, sums: list[Sum], operators: list[Operator]) -> Condition:
        if kind == "truth":
            return self._truth(sums[0])
        if kind == "compare":
            return self._compare(sums[0], operators[0], sums[1])
        if kind == "chain":
            return self._chain(sums, operators)
        if kind in ("between", "not_between"):
            found = self._between(*sums)
            if kind == "between":
                return found
            missing = [IsMissing(column.name) for term in sums[0].terms if (column := self._column(term.token))]
            return And((Not(found), *(Not(each) for each in missing)))
        column = self._only_column(sums[0])
        if column is None:
            return NEVER
        if kind in ("missing", "present"):
            return IsMissing(column.name) if kind == "missing" else Not(IsMissing(column.name))
        values = tuple(value for each in sums[1:] if (value := self._value(column, each)) is not None)
        return In(column.name, values, negated=kind == "not_within")

    def _fault(self, where: Sum | Token, text: str) -> None:
        offset = where.offset if isinstance(where, Sum) else int(where.start_pos or 0)
        self.faults.append(Fault(offset, text))

    def _operator(self, token: Token) -> Operator:
        found = operator_of(str(token))
        if not isinstance(found, Operator):
            self._fault(token, found)
            return Operator.EQ
        return found

    def _column(self, token: Token) -> Column | None:
        """The column that a token names, if it names one."""
        return self._columns.get(name_of(token)) if token.type in ("NAME", "QUOTED") else None

    def _lone(self, part: Sum) -> Token | None:
        """The only token of a sum of one unsigned term without a factor."""
        term = part.terms[0]
        return term.token if len(part.terms) == 1 and term.factor is None and term.sign > 0 else None

    def _only_column(self, part: Sum) -> Column | None:
        """The column that a sum consists of; a fault where it is anything else."""
        token = self._lone(part)
        if token is None or token.type not in ("NAME", "QUOTED"):
            self._fault(part, "the name of a column is expected here")
            return None
        column = self._column(token)
        if column is None:
            self._fault(part, unknown_column(name_of(token), self._columns))
        return column

    def _truth(self, part: Sum) -> Condition:
        column = self._only_column(part)
        if column is not None and column.type is not ColumnType.BOOLEAN:
            self._fault(part, f"column '{column.name}' is a {column.type}; a comparison is expected after it")
        return NEVER if column is None else Compare(column.name, Operator.EQ, 1.0)

    def _compare(self, left: Sum, op: Operator, right: Sum) -> Condition:
        first, second = self._lone(left), self._lone(right)
        subject = None if first is None else self._column(first)
        if subject is None and second is not None and self._column(second) is not None and _is_literal(left):
            return self._compare(right, op.flipped, left)
        value_like = _is_literal(right) or (second is not None and self._column(second) is None)
        if subject is not None and (value_like or subject.type.is_text):
            value = self._value(subject, right)
            condition: Condition = NEVER if value is None else Compare(subject.name, op, value)
        else:
            condition = self._linear(left, op, right)
        if isinstance(condition, Compare | Linear):
            for text in atom_problems(condition, self._columns):
                self._fault(left, text)
        return condition

    def _chain(self, sums: list[Sum], operators: list[Operator]) -> Condition:
        ways = {str(op)[0] for op in operators}
        if len(ways) > 1 or not all(op.needs_order for op in operators):
            self._fault(sums[1], "a chain of comparisons must go one way, as 0 <= x < 1 does")
            return NEVER
        return And((self._compare(sums[0], operators[0], sums[1]), self._compare(sums[1], operators[1], sums[2])))

    def _between(self, middle: Sum, low: Sum, high: Sum) -> Condition:
        token = self._lone(middle)
        column = None if token is None else self._column(token)
        if column is None:
            return And((self._compare(middle, Operator.GE, low), self._compare(middle, Operator.LE, high)))
        bounds = [self._value(column, each) for each in (low, high)]
        if not column.type.is_ordered:
            self._fault(middle, f"'between' needs numbers or dates; column '{column.name}' is a {column.type}")
        if isinstance(bounds[0], float) and isinstance(bounds[1], float):
            return Between(column.name, bounds[0], bounds[1])
        return NEVER

    def _value(self, column: Column, part: Sum) -> Value | None:
        """A literal as a value of the column; a fault and None where it is none."""
        term = part.terms[0]
        if len(part.terms) > 1 or term.factor is not None:
            self._fault(part, f"one value is expected here for column '{column.name}'")
            return None
        value, problem = literal(column, term)
        problems = [problem] if problem else value_problems(column, () if value is None else (value,))
        for text in problems:
            self._fault(part, text)
        return None if problems else value

    def _linear(self, left: Sum, op: Operator, right: Sum) -> Condition:
        terms: list[tuple[str, float]] = []
        bound = 0.0
        date = next(
            (c.type for t in (*left.terms, *right.terms) if (c := self._column(t.token)) and c.type in _DATES), None
        )
        for side, sum_ in ((1.0, left), (-1.0, right)):
            for term in sum_.terms:
                if term.token.type in ("NAME", "QUOTED"):
                    factor = 1.0 if term.factor is None else float(term.factor)
                    terms.append((name_of(term.token), side * term.sign * factor))
                else:
                    bound -= side * term.sign * self._constant(term, date)
        if not terms:
            self._fault(left, "a comparison needs a column on one side")
        return Linear(tuple(terms), op, bound + 0.0)

    def _constant(self, term: Term, date: ColumnType | None) -> float:
        if term.token.type == "NUMBER":
            return float(term.token)
        if term.token.type == "DATE" and date is not None:
            try:
                return date_number(str(term.token), date)
            except ValueError as error:
                self._fault(term.token, str(error))
        else:
            self._fault(term.token, f"{term.token} cannot stand in a sum; numbers and columns can")
        return 0.0


_DATES = (ColumnType.DATE, ColumnType.DATETIME)


def _is_literal(part: Sum) -> bool:
    return len(part.terms) == 1 and part.terms[0].token.type not in ("NAME", "QUOTED")


def name_of(token: Token) -> str:
    """The name that a token spells, out of its backticks."""
    return _unescaped(str(token)[1:-1]) if token.type == "QUOTED" else str(token)


def _unescaped(text: str) -> str:
    out, escaped = [], False
    for sign in text:
        if escaped or sign != "\\":
            out.append("\n" if escaped and sign == "n" else sign)
            escaped = False
        else:
            escaped = True
    return "".join(out)


def literal(column: Column, term: Term) -> tuple[Value | None, str]:
    """A literal as a value of a column, or what is wrong with it."""
    kind, text = term.token.type, str(term.token)
    is_a = f"column '{column.name}' is a {column.type}"
    if column.type.is_text:
        if kind in ("NAME", "TEXT") and term.sign > 0:
            return (text if kind == "NAME" else _unescaped(text[1:-1])), ""
        return None, f'{is_a} and is compared with {text}; text that looks like something else needs quotes: "{text}"'
    if kind == "NUMBER" and column.type is not ColumnType.BOOLEAN:
        return term.sign * float(text), ""
    if column.type is ColumnType.BOOLEAN and kind in ("TRUE", "FALSE"):
        return float(kind == "TRUE"), ""
    if column.type in _DATES and kind in ("DATE", "TEXT") and term.sign > 0:
        try:
            return date_number(text.strip("\"'"), column.type), ""
        except ValueError as error:
            return None, f"{text} is no {column.type}: {error}"
    wanted = {"boolean": "true or false", "date": "a date such as 2024-02-29"}.get(str(column.type), "a number")
    return None, f"{is_a} and is compared with {text}; {wanted} is expected"
