"""Comparisons of weighted sums of a few columns, `a + 0.5 * b > 2`, for what runs askew of the axes.

For each class (against the rest), or for the number, columns are taken in one at a time, each time the one by which
a logistic (linear) regression gains most, as in forward stepwise regression (Hastie et al. 2009, 3.3.2). The weights
of each step make a sum; its thresholds are quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from modelkit.rules.columns import ColumnType
from modelkit.rules.conditions import Linear, Operator
from modelkit.rules.learn.atoms import Atoms, where
from modelkit.rules.learn.problem import Problem

_DIGITS = 2  # of a weight
_TRIED = 4  # columns of the steepest slope that are tried at each step
_RIDGE = 1.0
_STEPS = 20
_TINY = 1e-6
Terms = tuple[tuple[str, float], ...]


def with_sums(problem: Problem, atoms: Atoms, most: int, bins: int) -> Atoms:
    """The comparisons, and those of weighted sums.

    Args:
        problem: The rows.
        atoms: Comparisons of single columns.
        most: Columns of a sum at most; columns of numbers that are known in all rows may be in one.
        bins: Thresholds of a sum.
    """
    sums = dict.fromkeys(directions(problem, most))
    found: list[Linear] = []
    column: list[int] = []
    for index, terms in enumerate(sums):
        values = sum(weight * problem.table[name] for name, weight in terms)
        wanted = np.quantile(values, (np.arange(bins) + 0.5) / bins)
        for bound in dict.fromkeys(float(f"{value:.4g}") for value in wanted):
            found += [Linear(terms, op, bound) for op in (Operator.LE, Operator.GT)]
            column += [len(problem.columns) + index] * 2
    bits = where(found, problem.table, len(problem))
    kept = np.flatnonzero(bits.any(axis=0) & ~bits.all(axis=0))
    return Atoms(
        (*atoms.literals, *(found[i] for i in kept)),
        np.concatenate([atoms.column, np.array(column, np.int64)[kept]]),
        np.asfortranarray(np.hstack([atoms.bits, bits[:, kept]])),
    )


def directions(problem: Problem, most: int) -> Iterator[Terms]:
    """Weights of two columns and more, the largest in size being 1 or -1 standard deviation's worth of its column."""
    names = [column.name for column in problem.columns if column.type in (ColumnType.NUMBER, ColumnType.INTEGER)]
    names = [name for name in names if np.isfinite(problem.table[name]).all() and np.ptp(problem.table[name]) > 0]
    if len(names) < 2:
        return
    values = np.column_stack([problem.table[name] for name in names])
    scale = values.std(axis=0)
    unit = (values - values.mean(axis=0)) / scale
    # The second of two classes says all about the first.
    targets = problem.target[:, 1:] if len(problem.classes) == 2 else problem.target
    for target in targets.T:
        for chosen, weights in _forward(unit, target, min(most, len(names)), logistic=not problem.is_numeric):
            if len(chosen) > 1:
                yield _rounded([names[i] for i in chosen], weights, scale[chosen])


def _rounded(names: list[str], weights: np.ndarray, scale: np.ndarray) -> Terms:
    found = weights / scale
    found = found / found[np.abs(weights).argmax()]
    return tuple((name, float(f"{weight:.{_DIGITS}g}")) for name, weight in zip(names, found, strict=True))


def _forward(
    values: np.ndarray, target: np.ndarray, most: int, *, logistic: bool
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Columns chosen so far, and the weight of each, after each step."""
    chosen: list[int] = []
    fit = np.zeros(len(values)) + (_logit(target.mean()) if logistic else target.mean())
    for _ in range(most):
        slope = np.abs(values.T @ (target - (_sigmoid(fit) if logistic else fit)))
        slope[chosen] = -1.0
        tried = np.argsort(-slope, kind="stable")[: min(_TRIED, len(slope) - len(chosen))]
        fits = [(_fitted(values[:, [*chosen, j]], target, logistic=logistic), int(j)) for j in tried]
        (loss, weights), column = min(fits, key=lambda pair: pair[0][0])
        if not np.isfinite(loss):
            return
        chosen.append(column)
        fit = values[:, chosen] @ weights[:-1] + weights[-1]
        yield list(chosen), weights[:-1]


def _fitted(values: np.ndarray, target: np.ndarray, *, logistic: bool) -> tuple[float, np.ndarray]:
    """Loss and weights of a ridge regression, the intercept last."""
    design = np.column_stack([values, np.ones(len(values))])
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[-1] = _TINY
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS if logistic else 1):
        now = design @ weights
        share = _sigmoid(now) if logistic else now
        curve = share * (1 - share) + _TINY if logistic else np.ones(len(now))
        slope = design.T @ (target - share) - ridge * weights
        step = np.linalg.solve((design * curve[:, None]).T @ design + np.diag(ridge), slope)
        weights = weights + step
        if np.abs(step).max() < 1e-4:
            break
    now = design @ weights
    loss = np.logaddexp(0, now) - target * now if logistic else 0.5 * (target - now) ** 2
    return float(loss.sum() + 0.5 * ridge @ weights**2), weights


def _sigmoid(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return found


def _logit(share: float) -> float:
    share = min(max(float(share), 1e-3), 1 - 1e-3)
    return float(np.log(share / (1 - share)))
