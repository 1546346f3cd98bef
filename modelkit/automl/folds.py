"""Splits of rows: stratified, by groups, or by time; repeated where there are few rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelkit.automl.problem import Problem
from modelkit.errors import DataError


@dataclass(frozen=True)
class Fold:
    """Rows to fit on and rows to predict, in which repetition."""

    fit: np.ndarray
    valid: np.ndarray
    repeat: int = 0


_FEW, _SOME, _MANY = 300, 1000, 3000  # rows: tables that are repeated on more often, and that take fewer folds


def how_many(problem: Problem, folds: int | None, *, fresh: bool = False) -> tuple[int, int]:
    """Number of folds and of repetitions for a table of some size.

    Args:
        problem: The table.
        folds: How many folds are wanted; None to tell by the rows.
        fresh: Whether it is for the few trials that are tried again, which can be more thorough than a search.

    Raises:
        DataError: There are fewer rows (or groups) than folds.
    """
    rows = problem.rows
    if folds is None:
        folds = 5 if rows <= _MANY else 3
        if problem.is_classes:
            folds = max(2, min(folds, int(np.bincount(problem.y, minlength=problem.width).max())))
        folds = max(2, min(folds, rows // 2))
        if problem.groups is not None:
            folds = max(2, min(folds, len(np.unique(problem.groups))))
    units = rows if problem.groups is None else len(np.unique(problem.groups))
    if units < folds:
        what = "rows" if problem.groups is None else "groups"
        raise DataError(
            f"{units} {what} are fewer than {folds} folds", hint="give more rows, or --set search.folds=2"
        )
    if problem.order is not None or rows > _SOME:
        return folds, 1
    return folds, (2 if rows <= _FEW else 1) + fresh


def make_folds(problem: Problem, folds: int, repeats: int, seed: int) -> list[Fold]:
    """Folds: ``folds`` x ``repeats`` of them, each row predicted once in each repetition (by time: at most once)."""
    if problem.order is not None:
        return _by_time(problem.order, folds)
    found = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        part = _parts(problem, folds, rng)
        found += [Fold(np.flatnonzero(part != k), np.flatnonzero(part == k), repeat) for k in range(folds)]
    return found


def held_out(problem: Problem, share: float, seed: int) -> np.ndarray:
    """A mask of the rows [N] that are set apart for the reported figures; the last ones by time."""
    if problem.order is not None:
        cut = np.quantile(problem.order, 1 - share)
        return np.asarray(problem.order > cut)
    parts = round(1 / share) if share <= 0.25 else 20
    mine = 1 if share <= 0.25 else round(20 * share)
    return np.asarray(_parts(problem, parts, np.random.default_rng([seed, 1000])) < mine)


def set_apart(problem: Problem, test: Problem | None, share: float, seed: int) -> tuple[Problem, Problem, np.ndarray]:
    """Rows to search with, rows that only the reported figures are from, and their numbers (of the test's rows)."""
    if test is not None:
        return problem, test, np.arange(test.rows)
    apart = held_out(problem, share, seed)
    rows = np.flatnonzero(apart)
    if not len(rows) or apart.all():
        raise DataError(f"{problem.rows} rows are too few to set {share:.0%} of them apart", hint="give more rows")
    return problem.take(np.flatnonzero(~apart)), problem.take(rows), rows


def _parts(problem: Problem, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of parts [N], each with nearly the same share of every class, or of every range of values."""
    if problem.groups is not None:
        return _group_parts(problem.groups, count, rng)
    shuffled = rng.permutation(problem.rows)
    order = shuffled[np.argsort(problem.y[shuffled], kind="stable")]
    part = np.empty(problem.rows, np.int64)
    for start in range(0, problem.rows, count):
        block = order[start : start + count]
        part[block] = rng.permutation(count)[: len(block)]
    return part


def _group_parts(groups: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Whole groups to the part with the fewest rows so far, large groups first."""
    names, members = np.unique(groups, return_inverse=True)
    sizes = np.bincount(members)
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, where = np.zeros(count), np.empty(len(names), np.int64)
    for group in order:
        where[group] = int(filled.argmin())
        filled[where[group]] += sizes[group]
    return np.asarray(where[members])


def _by_time(order: np.ndarray, folds: int) -> list[Fold]:
    """Each fold is fitted on what came before what it predicts."""
    cuts = np.quantile(order, np.linspace(0, 1, folds + 2)[1:-1])
    block = np.searchsorted(cuts, order, side="left")
    found = [Fold(np.flatnonzero(block < k), np.flatnonzero(block == k)) for k in range(1, folds + 1)]
    found = [fold for fold in found if len(fold.fit) and len(fold.valid)]
    if not found:
        raise DataError("the time column has too few different values to split by", hint="leave --time-column out")
    return found
