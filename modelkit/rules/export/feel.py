"""FEEL, the language of DMN: unary tests and literals, written for sets of cells and read back as conditions.

FEEL has null for missing, and a comparison with it does not hold; ``not("a")`` holds for it. Its numbers are decimals
of 34 digits: comparisons of doubles that are written with their shortest digits come out alike, sums would not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from modelkit.rules.axes import CategoryAxis, NumberAxis
from modelkit.rules.columns import Column, ColumnType, date_number, date_text
from modelkit.rules.conditions import ALWAYS, And, Compare, Condition, In, IsMissing, Not, Operator, Or
from modelkit.rules.export.errors import ExportError
from modelkit.rules.export.names import variables

ANY = "-"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?: [A-Za-z0-9_]+)*\Z")
_WORDS = frozenset(
    {*("and", "or", "not", "in", "between", "if", "then", "else", "for", "return", "some", "every", "satisfies")}
    | {"instance", "of", "function", "external", "true", "false", "null", "date", "time", "duration", "is"}
)
_DATES = {ColumnType.DATE: "date", ColumnType.DATETIME: "date and time"}


def names(given: Sequence[str]) -> dict[str, str]:
    """For each name one that FEEL takes: itself, where it is made of words that mean nothing else."""
    kept = [name for name in given if _NAME.match(name) and not _WORDS & set(name.lower().split())]
    made = variables([name for name in given if name not in kept], frozenset({*kept, *_WORDS}))
    return {name: made.get(name, name) for name in given}


def string(text: str) -> str:
    """A quoted text; JSON's escapes are FEEL's, too."""
    return json.dumps(text, ensure_ascii=False)


def number(value: float) -> str:
    """A number without an exponent."""
    if not math.isfinite(value):
        raise ExportError("dmn", "FEEL has no infinite numbers, which a condition needs")
    text = format(Decimal(repr(value + 0.0)), "f")
    return text.removesuffix(".0")


def literal(value: float, column: Column) -> str:
    """A number, boolean or date of a column."""
    if column.type not in _DATES:
        return number(value)
    text = date_text(value, column.type)
    try:
        exact = date_number(text, column.type) == value
    except ValueError:
        exact = False
    if not exact:
        raise ExportError("dmn", f"column '{column.name}' is compared with {value!r}, which is no {column.type}")
    return f'{_DATES[column.type]}("{text}{"Z" if column.type is ColumnType.DATETIME else ""}")'


def tests(axis: NumberAxis | CategoryAxis, cells: int) -> str:
    """The unary tests that hold in these cells of a column."""
    if cells == (1 << axis.size) - 1:
        return ANY
    if cells == (1 << axis.size) - 2:
        return "not(null)"
    if isinstance(axis, CategoryAxis):
        return _categories(axis, cells)
    if axis.column.type is ColumnType.BOOLEAN:
        wanted = [("false", 0.0), ("true", 1.0)]
        found = [text for text, value in wanted if cells >> int(axis.locate([value])[0]) & 1]  # type: ignore[arg-type]
    else:
        found = [_interval(axis, first, last) for first, last in _runs(cells >> 1, axis.size - 1)]
    return ", ".join([*(["null"] if cells & 1 else []), *found]) or "not(null, true, false)"


def _categories(axis: CategoryAxis, cells: int) -> str:
    values = axis.column.values
    inside = [string(value) for i, value in enumerate(values, 1) if cells >> i & 1]
    if not cells >> (len(values) + 1) & 1:
        return ", ".join([*(["null"] if cells & 1 else []), *inside])
    outside = [string(value) for i, value in enumerate(values, 1) if not cells >> i & 1]
    return f"not({', '.join([*outside, *([] if cells & 1 else ['null'])])})"


def _runs(bits: int, size: int) -> Iterator[tuple[int, int]]:
    """First and last cell of each span of neighbouring ones, counted as the axis does."""
    start = None
    for cell in range(1, size + 2):
        inside = cell <= size and bits >> (cell - 1) & 1
        if inside and start is None:
            start = cell
        elif not inside and start is not None:
            yield start, cell - 1
            start = None


def _interval(axis: NumberAxis, first: int, last: int) -> str:
    """An interval; of two ways to write an end, that with fewer digits: ``<= 2.45`` or ``< 2.4500000000000006``."""
    low = None if first == 1 else axis.cuts[first - 2]
    high = None if last == axis.size - 1 else axis.cuts[last - 1]
    if low is not None and high == math.nextafter(low, math.inf):
        return literal(low, axis.column)
    start = None if low is None else _end(low, axis.column, "[", "(")
    end = None if high is None else _end(high, axis.column, ")", "]")
    if start is None:
        assert end is not None
        return f"{'<' if end[0] == ')' else '<='} {end[1]}"
    if end is None:
        return f"{'>=' if start[0] == '[' else '>'} {start[1]}"
    return f"{start[0]}{start[1]}..{end[1]}{end[0]}"


def _end(cut: float, column: Column, at: str, below: str) -> tuple[str, str]:
    """Bracket and literal of ``x >= cut``'s edge: at the cut itself, or at the double below it."""
    before = math.nextafter(cut, -math.inf)
    options = []
    for sign, value in ((at, cut), (below, before)):
        try:
            options.append((len(literal(value, column)), sign, literal(value, column)))
        except ExportError as error:
            reason = error
    if not options:
        raise reason
    _, sign, text = min(options, key=lambda option: option[0])
    return sign, text


_STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
_LITERAL = rf'{_STRING}|-?\d+(?:\.\d+)?|true|false|null|date and time\("[^"\\]*"\)|date\("[^"\\]*"\)'
_TEST = re.compile(
    rf"\s*(?:(?P<open>[\[(])(?P<low>{_LITERAL})\.\.(?P<high>{_LITERAL})(?P<close>[\])])"
    rf"|(?P<op><=|<|>=|>)\s*(?P<bound>{_LITERAL})|(?P<value>{_LITERAL}))\s*(?:,(?=.)|\Z)",
    re.DOTALL,
)


def parse_literal(text: str) -> float | str | bool | None:
    """The value of a literal: dates in days or seconds.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(_LITERAL, text):
        raise ValueError(f"{text[:60]!a} is no literal")
    if text.startswith("date"):
        inner = text[text.index('"') + 1 : text.rindex('"')].replace("Z", "+00:00")
        return date_number(inner, ColumnType.DATE if text.startswith("date(") else ColumnType.DATETIME)
    if text in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text]
    return str(json.loads(text)) if text.startswith('"') else float(text)


def parse_tests(text: str, column: str) -> Condition:
    """Unary tests as a condition on a column.

    Raises:
        ValueError: They are none that `tests` writes.
    """
    text = text.strip()
    if text == ANY:
        return ALWAYS
    if text.startswith("not(") and text.endswith(")"):
        return Not(Or(tuple(_parsed(text[4:-1], column))))
    return Or(tuple(_parsed(text, column)))


def _parsed(text: str, column: str) -> Iterator[Condition]:
    place = 0
    while place < len(text):
        found = _TEST.match(text, place)
        if found is None:
            raise ValueError(f"{text[place : place + 60]!a} is no unary test")
        place = found.end()
        if found["op"]:
            yield _compare(column, found["op"], found["bound"])
        elif found["open"]:
            low = _compare(column, ">=" if found["open"] == "[" else ">", found["low"])
            yield And((low, _compare(column, "<=" if found["close"] == "]" else "<", found["high"])))
        else:
            value = parse_literal(found["value"])
            yield IsMissing(column) if value is None else In(column, (_stored(value),))


def _compare(column: str, op: str, text: str) -> Condition:
    value = parse_literal(text)
    if value is None or isinstance(value, bool | str):
        raise ValueError(f"{text[:60]!a} cannot be compared by {op}")
    return Compare(column, Operator(op), value)


def _stored(value: float | str | bool) -> float | str:
    return float(value) if isinstance(value, bool) else value
