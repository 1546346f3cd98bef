"""Typed columns: what a rule set may know of its input, and how each type's values become doubles or text.

Every value that a rule compares is one of two things in memory. A *category* is text, compared exactly; missing is
the empty text. Everything else is a double (binary64); missing is NaN:

============  ========================================================================
number        as it is
integer       as it is; whole numbers of at most 2**53 in size
boolean       0.0 or 1.0
date          whole days since 1970-01-01
datetime      seconds since 1970-01-01T00:00:00 UTC
============  ========================================================================
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeGuard

MAX_EXACT = 2**53  # beyond it doubles skip whole numbers
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY = 86_400

Value = float | str
"""What a condition compares with: text for a category, a double for every other type."""


class ColumnType(StrEnum):
    """What a column holds."""

    NUMBER = "number"
    INTEGER = "integer"
    CATEGORY = "category"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"

    @property
    def is_text(self) -> bool:
        """Whether values are text; otherwise they are doubles."""
        return self is ColumnType.CATEGORY

    @property
    def is_ordered(self) -> bool:
        """Whether values can be compared with < and >."""
        return self not in (ColumnType.CATEGORY, ColumnType.BOOLEAN)

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers occur (booleans are 0 and 1)."""
        return self in (ColumnType.INTEGER, ColumnType.BOOLEAN, ColumnType.DATE)


@dataclass(frozen=True)
class Column:
    """A column of the input.

    Attributes:
        name: Its name, as in the data.
        type: What it holds.
        low: Smallest valid value, inclusive; None where there is none. In the unit of the column (dates in days).
        high: Largest valid value, inclusive.
        values: Categories that may occur, in the order in which they are shown; of a category column only.
        other: Whether a category column may hold values that are not declared; they equal no declared value.
        missing: Whether a value may be missing.
        unit: Unit of measure, for people.
        description: What it is, for people.
    """

    name: str
    type: ColumnType
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    other: bool = False
    missing: bool = False
    unit: str = ""
    description: str = ""

    def problems(self) -> list[str]:
        """What is wrong with the declaration by itself, a line each."""
        found = []
        if not self.name or not self.name.isprintable():
            found.append("a column's name must be printable text")
        if self.type.is_text:
            if not self.values:
                found.append(f"column '{self.name}' declares no values; a category column needs them")
            if "" in self.values:
                found.append(f"column '{self.name}': the empty text means missing and cannot be a category")
            if len(set(self.values)) < len(self.values):
                found.append(f"column '{self.name}' declares a value twice")
        elif self.values or self.other:
            found.append(f"column '{self.name}' is a {self.type}; only a category column declares values")
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if bounds and not self.type.is_ordered:
            found.append(f"column '{self.name}' is a {self.type} and has no range")
        if not all(map(math.isfinite, bounds)):
            found.append(f"column '{self.name}': the bounds of a range must be finite; leave out one that is open")
        elif len(bounds) == 2 and bounds[0] > bounds[1]:
            found.append(f"column '{self.name}': the range ends before it begins")
        elif self.type.is_whole and len(bounds) == 2 and math.ceil(bounds[0]) > math.floor(bounds[1]):
            found.append(f"column '{self.name}': no whole number lies in the range")
        return found


def is_date(value: object) -> TypeGuard[dt.date]:
    """Whether a Python value is a date or a datetime."""
    return isinstance(value, dt.date)


def date_number(text: str, type_: ColumnType) -> float:
    """A date in ISO 8601 as the double that a column of this type holds.

    Args:
        text: ``2024-02-29``, ``2024-02-29T12:30:00`` or ``2024-02-29T12:30:00+01:00``; without an offset it is UTC.
        type_: DATE (days; a time of day is refused) or DATETIME (seconds).

    Raises:
        ValueError: It is no date, or has a time of day where days are counted.
    """
    moment = dt.datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    seconds = (moment - _EPOCH) / dt.timedelta(seconds=1)
    if type_ is ColumnType.DATETIME:
        return seconds
    if seconds % _DAY:
        raise ValueError("a date has no time of day; the type datetime has")
    return seconds / _DAY


def date_text(number: float, type_: ColumnType) -> str:
    """The ISO 8601 text of a double of a date or datetime column; a plain number where no calendar has it."""
    try:
        moment = _EPOCH + dt.timedelta(seconds=number * (_DAY if type_ is ColumnType.DATE else 1))
    except (OverflowError, ValueError):
        return number_text(number)
    text = moment.date().isoformat() if type_ is ColumnType.DATE else moment.replace(tzinfo=None).isoformat()
    try:
        return text if date_number(text, type_) == number else number_text(number)
    except ValueError:
        return number_text(number)


def number_text(number: float) -> str:
    """The shortest decimal that is read back as this double; whole numbers without a point."""
    number = float(number)
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return repr(number)
