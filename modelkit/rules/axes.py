"""Axes of cells: each column's values cut into the finest pieces that the conditions of a rule set tell apart.

Every comparison with a constant is true on a whole number of cells, so conditions over one column become sets of
cells, held as the bits of a Python integer, and everything about them is exact. ``x <= t`` is ``x < t'`` with t' the
next double, so one kind of cut, ``x >= c``, is enough.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from modelkit.rules.columns import Column, ColumnType, Value
from modelkit.rules.conditions import Atom, Between, Compare, Condition, In, IsMissing, Linear, Operator

MISSING_CELL = 0


def after(value: float) -> float:
    """Return the next double: x is at most a value where it is less than the value after."""
    return math.nextafter(value, math.inf)


def cuts_of(atom: Compare | Between | In) -> list[float]:
    """The cuts ``x >= c`` that tell where a comparison of numbers holds."""
    if isinstance(atom, Between):
        return [float(atom.low) + 0.0, after(float(atom.high))]
    values = [atom.value] if isinstance(atom, Compare) else list(atom.values)
    found = []
    for value in values:
        number = float(value) + 0.0  # without the sign of zero
        op = atom.op if isinstance(atom, Compare) else Operator.EQ
        if op in (Operator.LT, Operator.GE, Operator.EQ, Operator.NE):
            found.append(number)
        if op in (Operator.LE, Operator.GT, Operator.EQ, Operator.NE):
            found.append(after(number))
    return found


@dataclass(frozen=True)
class NumberAxis:
    """A column of doubles in cells: 0 is missing, then intervals ``[low, cuts[0])``, ``[cuts[0], cuts[1])``, ...

    Attributes:
        column: The column.
        cuts: Sorted, inside (low, high].
        low: Smallest value; -inf where there is none.
        high: Largest value; inf where there is none.
        whole: Whether only whole numbers count.
        domain: Cells that can occur.
    """

    column: Column
    cuts: tuple[float, ...]
    low: float
    high: float
    whole: bool
    domain: int

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.cuts) + 2

    def cells(self, atom: Compare | Between | In | IsMissing) -> int:
        """Cells in which a comparison holds."""
        if isinstance(atom, IsMissing):
            return 1
        everything = (1 << self.size) - 2
        if isinstance(atom, Between):
            return self._from(float(atom.low)) & ~self._from(after(float(atom.high)))
        if isinstance(atom, In):
            found = 0
            for value in atom.values:
                found |= self._equal(float(value))
            return everything & ~found if atom.negated else found
        value = float(atom.value)
        if atom.op is Operator.EQ:
            return self._equal(value)
        if atom.op is Operator.NE:
            return everything & ~self._equal(value)
        if atom.op in (Operator.GE, Operator.GT):
            return self._from(value if atom.op is Operator.GE else after(value))
        return everything & ~self._from(value if atom.op is Operator.LT else after(value))

    def _equal(self, value: float) -> int:
        return self._from(value) & ~self._from(after(value))

    def _from(self, cut: float) -> int:
        """Cells with x >= cut."""
        everything = (1 << self.size) - 2
        cut = self._rounded(cut)
        if cut <= self.low:
            return everything
        return everything & -(1 << (bisect_left(self.cuts, cut) + 2))

    def _rounded(self, cut: float) -> float:
        return float(math.ceil(cut)) if self.whole and math.isfinite(cut) else cut

    def value(self, cell: int) -> float:
        """A value in a cell, with as few digits as possible; NaN for missing."""
        if cell == MISSING_CELL:
            return math.nan
        low, high = self.edges(cell)
        if self.column.type in (ColumnType.DATE, ColumnType.DATETIME) and math.isfinite(low):
            return low  # few digits make no simple date
        return simple_between(low, high, whole=self.whole)

    def edges(self, cell: int) -> tuple[float, float]:
        """Smallest and largest double in a cell (infinite where it has no end)."""
        low = self.cuts[cell - 2] if cell > 1 else self.low
        high = math.nextafter(self.cuts[cell - 1], -math.inf) if cell <= len(self.cuts) else self.high
        if self.whole:
            low, high = (
                (math.ceil(low) if math.isfinite(low) else low),
                (math.floor(high) if math.isfinite(high) else high),
            )
        return float(low), float(high)

    def locate(self, values: np.ndarray) -> np.ndarray:
        """The cell of each value: int64 [N]."""
        found = np.searchsorted(np.array(self.cuts), values, side="right") + 1
        return np.where(np.isnan(values), MISSING_CELL, found)


@dataclass(frozen=True)
class CategoryAxis:
    """A column of text: cell 0 is missing, then the declared values, then any other text."""

    column: Column
    domain: int

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.column.values) + 2

    def cells(self, atom: Compare | Between | In | IsMissing) -> int:
        """Cells in which a comparison holds."""
        if isinstance(atom, IsMissing):
            return 1
        assert isinstance(atom, Compare | In)
        values: Iterable[Value] = (atom.value,) if isinstance(atom, Compare) else atom.values
        negated = atom.op is Operator.NE if isinstance(atom, Compare) else atom.negated
        found = 0
        for value in values:
            found |= 1 << (self.column.values.index(str(value)) + 1)
        return ((1 << self.size) - 2) & ~found if negated else found

    def value(self, cell: int) -> str:
        """The text of a cell; empty for missing."""
        if cell == MISSING_CELL:
            return ""
        if cell <= len(self.column.values):
            return self.column.values[cell - 1]
        text = "other"
        while text in self.column.values:
            text += "_"
        return text

    def locate(self, values: np.ndarray) -> np.ndarray:
        """The cell of each value: int64 [N]."""
        known = {"": 0, **{value: i + 1 for i, value in enumerate(self.column.values)}}
        return np.fromiter((known.get(value, self.size - 1) for value in values), np.int64, len(values))


@dataclass(frozen=True)
class LinearAxis:
    """A linear condition as an axis of two cells: 0 where it does not hold, 1 where it does."""

    atom: Linear
    domain: int = 3
    size: int = 2


Axis = NumberAxis | CategoryAxis | LinearAxis
Key = str | Condition
"""What names an axis: a column, or a condition that is an axis of its own (those that are linear)."""


def make_axes(columns: Iterable[Column], found: Iterable[Atom], *, exact: bool) -> dict[Key, Axis]:
    """Axes for all columns and linear conditions.

    Args:
        columns: The columns.
        found: All comparisons.
        exact: True for any double that an evaluator may meet. False for what the columns declare: values in the
            valid range, whole numbers only where the type has no others, missing only where allowed.
    """
    cuts: dict[str, set[float]] = {}
    linear: dict[Key, Axis] = {}
    texts = {column.name for column in columns if column.type.is_text}
    for atom in found:
        if isinstance(atom, Linear):
            linear.setdefault(atom, LinearAxis(atom))
        elif not isinstance(atom, IsMissing) and atom.column not in texts:
            cuts.setdefault(atom.column, set()).update(cuts_of(atom))
    axes: dict[Key, Axis] = {column.name: _axis(column, cuts.get(column.name, set()), exact) for column in columns}
    return {**axes, **linear}


def _axis(column: Column, cuts: set[float], exact: bool) -> Axis:
    if column.type.is_text:
        domain = (1 << (len(column.values) + 2)) - 1
        if not exact:
            domain &= ~(0 if column.missing else 1) & ~(0 if column.other else 1 << (len(column.values) + 1))
        return CategoryAxis(column, domain)
    low, high, whole = -math.inf, math.inf, False
    if not exact:
        whole = column.type.is_whole
        low = 0.0 if column.type is ColumnType.BOOLEAN else -math.inf if column.low is None else column.low
        high = 1.0 if column.type is ColumnType.BOOLEAN else math.inf if column.high is None else column.high
    if whole:
        cuts = {float(math.ceil(cut)) if math.isfinite(cut) else cut for cut in cuts}
        low = float(math.ceil(low)) if math.isfinite(low) else low
        high = float(math.floor(high)) if math.isfinite(high) else high
    inside = tuple(sorted(cut for cut in cuts if low < cut <= high and (exact or cut < math.inf)))
    domain = (1 << (len(inside) + 2)) - 1
    return NumberAxis(column, inside, low, high, whole, domain if exact or column.missing else domain & ~1)


def simple_between(low: float, high: float, *, whole: bool) -> float:
    """A number in [low, high] with as few digits as possible; finite where there is a finite one."""
    if low <= 0 <= high:
        return 0.0
    if low == -math.inf:
        return _simple(high - max(1.0, abs(high)), high, whole)
    if high == math.inf:
        return _simple(low, low + max(1.0, abs(low)), whole)
    return _simple(low, high, whole)


def _simple(low: float, high: float, whole: bool) -> float:
    """A number in [low, high], which are finite (or overflowed) and have the same sign."""
    low, high = max(low, -math.nextafter(math.inf, 0)), min(high, math.nextafter(math.inf, 0))
    if whole:
        return float(math.ceil(low))
    middle = low + (high - low) / 2
    for digits in range(17):
        for candidate in (middle, low, high):
            rounded = float(f"{candidate:.{digits}e}")
            if low <= rounded <= high:
                return rounded
    return low
