"""Comparisons that rules are put together from: thresholds, categories and missing flags, as a table of bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import Compare, In, IsMissing, Linear, Not, Operator
from modelkit.rules.evaluate import Cache, Table, holds, is_missing
from modelkit.rules.learn.problem import Problem

Literal = Compare | In | IsMissing | Not | Linear
"""A comparison in a learned rule; `Not` only around `IsMissing`."""

_MAX_CATEGORIES = 24  # of one column that get comparisons of their own
_MOST_CELLS = 12_000_000  # rows times comparisons


@dataclass(frozen=True)
class Atoms:
    """Comparisons, and where they hold.

    Attributes:
        literals: A comparisons.
        column: int64 [A]: index of the column that each looks at; each weighted sum counts as a column of its own.
        bits: bool [N, A].
    """

    literals: tuple[Literal, ...]
    column: np.ndarray
    bits: np.ndarray

    @cached_property
    def transposed(self) -> np.ndarray:
        """float32 [A, N], to be multiplied with statistics of the rows."""
        return np.ascontiguousarray(self.bits.T, np.float32)

    def box(self, chosen: tuple[int, ...]) -> np.ndarray:
        """Where all of some comparisons hold: bool [N]."""
        found: np.ndarray = np.logical_and.reduce(self.bits[:, list(chosen)], axis=1)
        return found


def make_atoms(problem: Problem, bins: int, splits: Mapping[str, np.ndarray] | None = None) -> Atoms:
    """List the comparisons that are worth trying.

    Args:
        problem: The rows.
        bins: Thresholds of a column at most; they lie between neighbouring values, at quantiles where there are
            more. Fewer are taken where rows times comparisons would be too many.
        splits: Thresholds of a column, such as a teacher's own, each as often as it is used: they take the place
            of values.
    """
    width = max(1, len(problem.columns))
    bins = max(3, min(bins, _MOST_CELLS // (2 * width * max(1, len(problem)))))
    found: list[Literal] = []
    column: list[int] = []
    for index, each in enumerate(problem.columns):
        literals = list(_literals(each, problem, bins, (splits or {}).get(each.name)))
        found += literals
        column += [index] * len(literals)
    bits = where(found, problem.table, len(problem))
    # What holds everywhere or nowhere says nothing, and of two that hold alike the first is enough.
    first = np.unique(np.packbits(bits, axis=0), axis=1, return_index=True)[1]
    share = bits.sum(axis=0, dtype=np.float64) / max(1, len(bits))
    kept = np.array(sorted(i for i in first if 0 < share[i] < 1), np.int64)
    return Atoms(tuple(found[i] for i in kept), np.array(column, np.int64)[kept], bits[:, kept])


def where(literals: Sequence[Literal], table: Table, count: int) -> np.ndarray:
    """Where comparisons hold: bool [N, A]."""
    cache: Cache = {}
    bits = np.empty((count, len(literals)), bool, order="F")
    for i, literal in enumerate(literals):
        bits[:, i] = holds(literal, table, cache)
    return bits


def _literals(column: Column, problem: Problem, bins: int, splits: np.ndarray | None) -> Iterator[Literal]:
    values = problem.table[column.name]
    missing = is_missing(values)
    name = column.name
    if column.type.is_text:
        yield from _categories(name, values, missing, problem)
    elif column.type is ColumnType.BOOLEAN:
        yield Compare(name, Operator.EQ, 1.0)
        yield Compare(name, Operator.EQ, 0.0)
    else:
        known = values[~missing]
        thresholds = cuts(known, bins, whole=column.type.is_whole) if splits is None else snapped(splits, known, bins)
        for threshold in thresholds:
            yield Compare(name, Operator.LE, threshold)
            yield Compare(name, Operator.GT, threshold)
    if missing.any():
        yield IsMissing(name)
        yield Not(IsMissing(name))


def snapped(splits: np.ndarray, values: np.ndarray, bins: int) -> list[float]:
    """Thresholds of a teacher, each as the shortest number that parts the values as it does; quantiles where many.

    Args:
        splits: Ascending thresholds, each as often as it is used.
        values: Values of the column, without missing ones.
        bins: How many at most.
    """
    if len(np.unique(splits)) > bins:
        splits = np.quantile(splits, (np.arange(bins) + 0.5) / bins, method="nearest")
    known = np.unique(values)
    found = []
    for split in np.unique(splits):
        above = int(np.searchsorted(known, split, side="right"))
        if 0 < above < len(known):
            found.append(shortest(float(split), float(known[above - 1]), float(known[above])))
    return list(dict.fromkeys(found))


def shortest(number: float, low: float, high: float) -> float:
    """The number of the fewest digits near another, low <= it < high, nearer than a quarter of the gap."""
    for digits in range(1, 18):
        rounded = float(f"{number:.{digits}g}")
        if low <= rounded < high and abs(rounded - number) <= 0.25 * (high - low):
            return rounded
    return number


def cuts(values: np.ndarray, bins: int, *, whole: bool = False) -> list[float]:
    """Thresholds between neighbouring values: all, or those nearest to quantiles.

    Args:
        values: float64, without missing ones.
        bins: How many at most.
        whole: Whether only whole numbers occur: then thresholds are whole, too.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 2:
        return []
    gaps = np.arange(len(distinct) - 1)
    if len(gaps) > bins:
        below = np.cumsum(counts)[:-1] / counts.sum()
        wanted = (np.arange(bins) + 1) / (bins + 1)
        gaps = np.unique(np.abs(below[None, :] - wanted[:, None]).argmin(axis=1))
    if whole:
        return [float(np.floor((distinct[i] + distinct[i + 1]) / 2)) for i in gaps]
    return [between(distinct[i], distinct[i + 1]) for i in gaps]


def between(low: float, high: float) -> float:
    """The number of the fewest digits near the middle of two, low <= it < high.

    As a threshold of <= and > it parts the two just as the middle does.
    """
    low, high = float(low), float(high)
    found = shortest(low / 2 + high / 2, low, high)
    return found if low <= found < high else low


def _categories(name: str, values: np.ndarray, missing: np.ndarray, problem: Problem) -> Iterator[Literal]:
    known, counts = np.unique(values[~missing].astype(str), return_counts=True)
    frequent = [str(known[i]) for i in np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES]]
    for value in frequent:
        yield Compare(name, Operator.EQ, value)
        yield Compare(name, Operator.NE, value)
    if len(frequent) < 4:
        return
    # Groups of categories: neighbours in the order of their mean target, which holds the best split of
    # two classes or of numbers (Fisher 1958; Breiman et al. 1984, 4.2).
    seen: set[frozenset[str]] = set()
    for k in range(problem.target.shape[1]):
        means = [problem.target[values == value, k].mean() for value in frequent]
        ranked = [frequent[i] for i in np.argsort(means, kind="stable")]
        for size in range(2, len(ranked) - 1):
            for group in (ranked[:size], ranked[size:]):
                if frozenset(group) not in seen:
                    seen.add(frozenset(group))
                    yield In(name, tuple(sorted(group)))
