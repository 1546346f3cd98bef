"""Rows inside regions: directly where all conditions are comparisons, by z3 where linear conditions restrict them.

z3 reckons with exact rationals, an evaluator with doubles. Every linear condition therefore has a margin, a bound of
the rounding errors of its sum: a region is empty only if even the conditions widened by it cannot be met.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

from modelkit.rules.axes import CategoryAxis, LinearAxis, NumberAxis
from modelkit.rules.boxes import Region, Space
from modelkit.rules.budget import Budget
from modelkit.rules.conditions import Linear, Operator
from modelkit.rules.evaluate import holds
from modelkit.rules.model import RuleSet
from modelkit.rules.table import Row, table_of

_MARGIN = Fraction(1, 2**44)  # of the sum of absolute products: covers the rounding of sums of 100 terms and more
_QUERY_MS = 2000


class Found(StrEnum):
    """What is known of a region."""

    ROW = "row"
    EMPTY = "empty"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """A row inside a region, or that there is none.

    Attributes:
        found: What is known.
        row: The row; None unless one was found.
    """

    found: Found
    row: Row | None = None


def has_solver() -> bool:
    """Whether z3 is installed."""
    return find_spec("z3") is not None


class RowMaker:
    """Finds rows inside regions of a space.

    Args:
        rules: The rule set.
        space: The space.
        budget: Ends the solver's work.
    """

    def __init__(self, rules: RuleSet, space: Space, budget: Budget) -> None:
        self._rules, self._space, self._budget = rules, space, budget
        self._linear = [i for i, key in enumerate(space.spans) if isinstance(key, Linear)]
        self._solver = has_solver() if self._linear else False

    @property
    def why_not(self) -> str:
        """Why a region with linear conditions may be left undecided."""
        if self._linear and not self._solver:
            return "linear conditions need z3: pip install 'modelkit[rules]'"
        return "z3 found no answer in time"

    def row(self, region: Region) -> Answer:
        """A row inside a region, verified, or why there is none."""
        cells = self._cells(region)
        row = self._row(cells)
        if self._is_inside(row, region):
            return Answer(Found.ROW, row)
        if not self._linear:
            raise AssertionError("a region of plain comparisons always has rows")
        if not self._solver or self._budget.is_spent:
            return Answer(Found.UNKNOWN)
        return self._solve(region, cells)

    def _cells(self, region: Region) -> dict[str, int]:
        """A cell for each column: one that has a value where there is one."""
        cells: dict[str, int] = {}
        for i, key in enumerate(self._space.spans):
            if isinstance(key, str):
                cells[key] = int(region.high[i] if region.low[i] == 0 else region.low[i])
        for i, key in enumerate(self._space.sets):
            assert isinstance(key, str)
            cells[key] = _lowest(int(region.bits[i]))
        return cells

    def _row(self, cells: dict[str, int]) -> Row:
        row: Row = {}
        for column in self._rules.columns:
            axis = self._space.axes[column.name]
            assert not isinstance(axis, LinearAxis)
            row[column.name] = axis.value(cells.get(column.name, _lowest(axis.domain)))
        return row

    def _is_inside(self, row: Row, region: Region) -> bool:
        """Whether linear conditions come out as the region says (the others do by construction)."""
        table = table_of(self._rules, [row])
        for i in self._linear:
            condition = self._space.spans[i]
            assert isinstance(condition, Linear)
            wanted = {bool(cell) for cell in range(region.low[i], region.high[i] + 1)}
            if bool(holds(condition, table)[0]) not in wanted:
                return False
        return True

    def _solve(self, region: Region, cells: dict[str, int]) -> Answer:
        """Ask z3: first well inside all conditions, then with them widened."""
        for margin in (_MARGIN, -_MARGIN):
            answer = _Problem(self._rules, self._space, region, margin).solve(self._budget)
            if answer is None:
                return Answer(Found.EMPTY if margin < 0 else Found.UNKNOWN)
            if isinstance(answer, dict):
                row = {**self._row(cells), **answer}
                if self._is_inside(row, region) and self._is_in_cells(row, region):
                    return Answer(Found.ROW, row)
        return Answer(Found.UNKNOWN)

    def _is_in_cells(self, row: Row, region: Region) -> bool:
        table = table_of(self._rules, [row])
        for i, key in enumerate(self._space.spans):
            axis = self._space.axes[key]
            if isinstance(axis, NumberAxis | CategoryAxis) and isinstance(key, str):
                cell = int(axis.locate(table[key])[0])
                if not region.low[i] <= cell <= region.high[i]:
                    return False
        return True


def _lowest(cells: int) -> int:
    """The first cell of a set that has a value, or the missing one where that is all."""
    cells = cells & ~1 or cells
    return (cells & -cells).bit_length() - 1


class _Problem:
    """One question to z3: columns as variables, cells and linear conditions as constraints."""

    def __init__(self, rules: RuleSet, space: Space, region: Region, margin: Fraction) -> None:
        import z3

        self._z3, self._rules, self._space, self._margin = z3, rules, space, margin
        self._solver = z3.Solver()
        self._values: dict[str, Any] = {}
        self._missing: dict[str, Any] = {}
        where = {key: i for i, key in enumerate(space.spans)}
        for i, key in enumerate(space.spans):
            if isinstance(key, Linear) and region.low[i] == region.high[i]:
                for name, _ in key.terms:
                    if name not in self._values:
                        index = where.get(name)
                        axis = space.axes[name]
                        span = (
                            (0, axis.size - 1) if index is None else (int(region.low[index]), int(region.high[index]))
                        )
                        self._variable(name, span)
                self._condition(key, bool(region.low[i]))

    def _variable(self, name: str, span: tuple[int, int]) -> None:
        z3, axis = self._z3, self._space.axes[name]
        assert isinstance(axis, NumberAxis)
        self._values[name] = z3.Int(name) if axis.whole else z3.Real(name)
        self._missing[name] = z3.Bool(f"missing:{name}")
        first, last = span
        can_miss = first == 0 and bool(axis.domain & 1)
        if not can_miss:
            self._solver.add(z3.Not(self._missing[name]))
        if last == 0:
            self._solver.add(self._missing[name])
            return
        low, high = axis.edges(max(first, 1))[0], axis.edges(last)[1]
        for bound, sign in ((low, 1), (high, -1)):
            if math.isfinite(bound):
                value = _exact(z3, bound)
                here = self._values[name] >= value if sign > 0 else self._values[name] <= value
                self._solver.add(z3.Or(self._missing[name], here) if can_miss else here)

    def _condition(self, condition: Linear, wanted: bool) -> None:
        z3 = self._z3
        products = [_exact(z3, factor) * self._values[name] for name, factor in condition.terms]
        total = z3.Sum(products)
        slack = _exact(z3, self._margin) * z3.Sum([z3.If(p >= 0, p, -p) for p in products])
        bound = _exact(z3, condition.bound)
        op = condition.op if wanted else _NEGATED[condition.op]
        if op in (Operator.LE, Operator.LT):
            # With a margin above 0 strict and weak are the same to within it.
            holds_ = total + slack < bound if op is Operator.LT else total + slack <= bound
        elif op in (Operator.GE, Operator.GT):
            holds_ = total - slack > bound if op is Operator.GT else total - slack >= bound
        elif op is Operator.EQ:
            holds_ = z3.And(total - bound <= -slack, bound - total <= -slack) if self._margin < 0 else total == bound
        else:
            holds_ = z3.BoolVal(True) if self._margin < 0 else total != bound
        missing = [self._missing[name] for name, _ in condition.terms]
        self._solver.add(z3.And(holds_, *map(z3.Not, missing)) if wanted else z3.Or(holds_, *missing))

    def solve(self, budget: Budget) -> dict[str, float | str] | bool | None:
        """Values of the variables; None where there are none; False where z3 gave up."""
        self._solver.set("timeout", max(1, min(_QUERY_MS, int(budget.left * 1000))))
        result = self._solver.check()
        if result == self._z3.unsat:
            return None if self._margin < 0 else False
        if result != self._z3.sat:
            return False
        model = self._solver.model()
        found: dict[str, float | str] = {}
        for name, variable in self._values.items():
            if self._z3.is_true(model.eval(self._missing[name], model_completion=True)):
                found[name] = math.nan
                continue
            value = model.eval(variable, model_completion=True)
            found[name] = float(Fraction(str(value))) if not hasattr(value, "approx") else float(value.as_fraction())
        return found


def _exact(z3: Any, value: float | Fraction) -> Any:
    fraction = Fraction(value)
    return z3.Q(fraction.numerator, fraction.denominator)


_NEGATED = {
    Operator.LT: Operator.GE,
    Operator.LE: Operator.GT,
    Operator.GT: Operator.LE,
    Operator.GE: Operator.LT,
    Operator.EQ: Operator.NE,
    Operator.NE: Operator.EQ,
}


def linear_conditions(keys: Iterable[object]) -> list[Linear]:
    """The linear conditions among the keys of axes."""
    return [key for key in keys if isinstance(key, Linear)]
