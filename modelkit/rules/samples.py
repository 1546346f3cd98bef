"""Rows to test a rule set on: every value at which a condition may change its mind, and random mixtures of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from modelkit.rules.axes import CategoryAxis, NumberAxis, make_axes
from modelkit.rules.columns import Column
from modelkit.rules.conditions import Atom, Linear, atoms
from modelkit.rules.evaluate import Table, weighted_sum
from modelkit.rules.model import Bound, Forbid, Require, RuleSet


def all_atoms(rules: RuleSet) -> Iterator[Atom]:
    """All comparisons of rules and claims."""
    for rule in rules.rules:
        yield from atoms(rule.when)
    for claim in rules.claims:
        if isinstance(claim, Forbid | Require | Bound):
            yield from atoms(claim.when)


def boundary_values(rules: RuleSet, *, declared: bool) -> dict[str, np.ndarray]:
    """For each column the values next to all thresholds: at it, one double below, and between thresholds.

    Args:
        rules: The rule set.
        declared: Only what columns declare; otherwise also missing values, infinities, values out of range and
            unknown categories, which an evaluator must treat alike all the same.
    """
    axes = make_axes(rules.columns, all_atoms(rules), exact=not declared)
    found: dict[str, np.ndarray] = {}
    for column in rules.columns:
        axis = axes[column.name]
        if isinstance(axis, CategoryAxis):
            cells = [cell for cell in range(axis.size) if axis.domain >> cell & 1]
            found[column.name] = np.array([*(axis.value(cell) for cell in cells), ""], object)[:-1]
        else:
            assert isinstance(axis, NumberAxis)
            found[column.name] = _numbers(column, axis, declared)
    return found


def _numbers(column: Column, axis: NumberAxis, declared: bool) -> np.ndarray:
    values: list[float] = []
    for cell in range(1, axis.size):
        low, high = axis.edges(cell)
        values += [axis.value(cell), *(edge for edge in (low, high) if np.isfinite(edge))]
    if axis.domain & 1:
        values.append(np.nan)
    if not declared:
        values += [np.inf, -np.inf, -0.0]
        values += [bound for bound in (column.low, column.high) if bound is not None]
    return np.unique(np.array(values))


def boundary_rows(
    rules: RuleSet, rng: np.random.Generator, *, declared: bool, limit: int = 200_000
) -> dict[str, np.ndarray]:
    """Rows in which every boundary value of every column occurs at least once, the others being random ones.

    For linear conditions there are rows whose sum is the bound, or as near to it as doubles come.

    Args:
        rules: The rule set.
        rng: Source of the others.
        declared: See `boundary_values`.
        limit: Largest number of rows; beyond it, of each column as many values as fit are chosen at random.
    """
    values = boundary_values(rules, declared=declared)
    share = max(1, limit // len(values))
    chosen = {name: v if len(v) <= share else rng.choice(v, share, replace=False) for name, v in values.items()}
    table = random_rows(rules, sum(map(len, chosen.values())), rng, declared=declared, values=values)
    start = 0
    for name, each in chosen.items():
        table[name][start : start + len(each)] = each
        start += len(each)
    linear = list(dict.fromkeys(atom for atom in all_atoms(rules) if isinstance(atom, Linear)))
    parts = [table, *(_on_the_line(rules, atom, rng, declared, values) for atom in linear[:2000])]
    return {name: np.concatenate([part[name] for part in parts]) for name in table}


def random_rows(
    rules: RuleSet,
    count: int,
    rng: np.random.Generator,
    *,
    declared: bool,
    values: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Rows of boundary values and, in a third of the cells of number columns, of values between them.

    Args:
        rules: The rule set.
        count: Number of rows.
        rng: Source of randomness.
        declared: See `boundary_values`.
        values: What `boundary_values` gave, where known.
    """
    values = boundary_values(rules, declared=declared) if values is None else values
    table: dict[str, np.ndarray] = {}
    for column in rules.columns:
        pool = values[column.name]
        table[column.name] = picked = pool[rng.integers(len(pool), size=count)]
        if column.type.is_text or not column.type.is_ordered:
            continue
        finite = pool[np.isfinite(pool)]
        if len(finite) < 2 or (declared and column.type.is_whole and finite[-1] - finite[0] < 2):
            continue
        with np.errstate(over="ignore"):
            between = finite[0] + (finite[-1] - finite[0]) * rng.random(count)
        if declared and column.type.is_whole:
            between = np.floor(between)
        between = np.where(np.isfinite(between), between, finite[0])
        table[column.name] = np.where(rng.random(count) < 1 / 3, between, picked)
    return table


def _on_the_line(
    rules: RuleSet, atom: Linear, rng: np.random.Generator, declared: bool, values: dict[str, np.ndarray]
) -> Table:
    """Rows whose weighted sum is next to a bound: one column is solved for, and moved by a few doubles."""
    table = random_rows(rules, 9, rng, declared=declared, values=values)
    free = [(name, factor) for name, factor in atom.terms if factor and not rules.column[name].type.is_whole]
    if not free:
        return table
    name, factor = free[-1]
    rest = [(other, f) for other, f in atom.terms if other != name]
    with np.errstate(all="ignore"):
        solved = (atom.bound - weighted_sum(rest, table)) / factor
        solved = solved + np.spacing(solved) * (np.arange(9) - 4)
    column = rules.column[name]
    low, high = -np.inf if column.low is None else column.low, np.inf if column.high is None else column.high
    fits = np.isfinite(solved) & (solved >= low) & (solved <= high)
    table[name] = np.where(fits, solved, table[name])
    return table


def blocks(count: int, size: int) -> Iterable[int]:
    """Sizes of blocks that make up a count."""
    for start in range(0, count, size):
        yield min(size, count - start)
