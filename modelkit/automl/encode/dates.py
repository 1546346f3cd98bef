"""Dates as numbers that a model can use: the day itself, year, month, day, weekday, hour.

The civil calendar from days since 1970 is Howard Hinnant's algorithm ("chrono-compatible low-level date algorithms"),
in doubles: exact for all years that a date may have.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np

from modelkit.automl.export.graph import Graph

V = TypeVar("V")

PARTS = ("day", "year", "month", "day of month", "weekday")
_DAY = 86_400.0


class _Arithmetic(Protocol[V]):
    """What the calendar needs; numpy and a graph both have it."""

    def add(self, a: V, b: V | float) -> V: ...
    def mul(self, a: V, b: float) -> V: ...
    def floor_div(self, a: V, b: float) -> V: ...
    def at_least(self, a: V, bound: float) -> V: ...


class _Numpy:
    def add(self, a: np.ndarray, b: np.ndarray | float) -> np.ndarray:
        return a + b

    def mul(self, a: np.ndarray, b: float) -> np.ndarray:
        return a * b

    def floor_div(self, a: np.ndarray, b: float) -> np.ndarray:
        return np.floor(a / b)

    def at_least(self, a: np.ndarray, bound: float) -> np.ndarray:
        return (a >= bound).astype(float)


class _Nodes:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def add(self, a: str, b: str | float) -> str:
        return self._graph.node("Add", a, b if isinstance(b, str) else self._graph.constant(b, float))

    def mul(self, a: str, b: float) -> str:
        return self._graph.node("Mul", a, self._graph.constant(b, float))

    def floor_div(self, a: str, b: float) -> str:
        return self._graph.node("Floor", self._graph.node("Div", a, self._graph.constant(b, float)))

    def at_least(self, a: str, bound: float) -> str:
        return self._graph.cast(self._graph.node("GreaterOrEqual", a, self._graph.constant(bound, float)), float)


def _parts(math: _Arithmetic[V], days: V) -> list[V]:
    """Year, month, day of month and weekday (0 is Monday) of whole days since 1970-01-01."""
    shifted = math.add(days, 719_468.0)
    era = math.floor_div(shifted, 146_097.0)
    of_era = math.add(shifted, math.mul(era, -146_097.0))
    leap = math.add(
        math.add(math.mul(math.floor_div(of_era, 1460.0), -1.0), math.floor_div(of_era, 36_524.0)),
        math.mul(math.floor_div(of_era, 146_096.0), -1.0),
    )
    year_of_era = math.floor_div(math.add(of_era, leap), 365.0)
    before = math.add(
        math.add(math.mul(year_of_era, 365.0), math.floor_div(year_of_era, 4.0)),
        math.mul(math.floor_div(year_of_era, 100.0), -1.0),
    )
    of_year = math.add(of_era, math.mul(before, -1.0))
    month = math.floor_div(math.add(math.mul(of_year, 5.0), 2.0), 153.0)  # 0 is March
    start = math.floor_div(math.add(math.mul(month, 153.0), 2.0), 5.0)
    day = math.add(math.add(of_year, math.mul(start, -1.0)), 1.0)
    late = math.at_least(month, 10.0)  # January and February
    civil_month = math.add(math.add(month, 3.0), math.mul(late, -12.0))
    year = math.add(math.add(year_of_era, math.mul(era, 400.0)), late)
    weekday = math.add(math.add(days, 3.0), math.mul(math.floor_div(math.add(days, 3.0), 7.0), -7.0))
    return [year, civil_month, day, weekday]


def date_parts(values: np.ndarray, is_time: bool) -> list[np.ndarray]:
    """The features of dates (days) or times (seconds since 1970): ``PARTS``, and for times the hour."""
    math = _Numpy()
    days = math.floor_div(values, _DAY) if is_time else values
    with np.errstate(invalid="ignore"):
        parts = [days, *_parts(math, days)]
    return [*parts, math.mul(math.add(values, math.mul(days, -_DAY)), 1 / 3600)] if is_time else parts


def date_nodes(graph: Graph, value: str, is_time: bool) -> list[str]:
    """The same as nodes."""
    math = _Nodes(graph)
    days = math.floor_div(value, _DAY) if is_time else value
    parts = [days, *_parts(math, days)]
    return [*parts, math.mul(math.add(value, math.mul(days, -_DAY)), 1 / 3600)] if is_time else parts
