"""Rows that could have been in the data: between neighbours, to ask a teacher about."""

from __future__ import annotations

import numpy as np

from modelkit.rules.columns import Column
from modelkit.rules.evaluate import Table, is_missing

_NEIGHBOURS = 8
_MOST = 4000  # rows that neighbours are looked for among


def rows_near(
    columns: tuple[Column, ...], table: Table, count: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Make rows up between a row and one of its nearest neighbours (as SMOTE does; Chawla et al. 2002).

    Numbers lie somewhere between the two, whole numbers rounded; categories and missing values come from either.

    Args:
        columns: The columns.
        table: The rows.
        count: How many to make.
        rng: Source of chance.
    """
    total = len(next(iter(table.values())))
    some = np.sort(rng.permutation(total)[:_MOST])
    one = rng.integers(0, len(some), count)
    nearest = _neighbours(columns, {name: values[some] for name, values in table.items()})
    other = some[nearest[one, rng.integers(0, nearest.shape[1], count)]]
    one = some[one]
    share = rng.random(count)
    found = {}
    for column in columns:
        values = table[column.name]
        a, b = values[one], values[other]
        either = np.where(rng.random(count) < share, b, a)
        if column.type.is_text:
            found[column.name] = either.astype(object)
            continue
        between = a + share * (b - a)
        if column.type.is_whole:
            between = np.rint(between)
        known = ~(np.isnan(a) | np.isnan(b))
        found[column.name] = np.where(known, between, either)
    return found


def _neighbours(columns: tuple[Column, ...], table: Table) -> np.ndarray:
    """Indices of the nearest other rows of each row: int64 [N, up to 8].

    Numbers count in standard deviations; a category that differs, or one value missing, counts as one.
    """
    parts = []
    for column in columns:
        values = table[column.name]
        missing = is_missing(values)
        if column.type.is_text:
            _, codes = np.unique(values.astype(str), return_inverse=True)
            parts.append(np.eye(codes.max() + 1)[codes] / np.sqrt(2))
            continue
        known = values[~missing]
        scale = known.std() if len(known) else 0.0
        filled = np.where(missing, known.mean() if len(known) else 0.0, values)
        parts.append(((filled - filled.mean()) / (scale or 1.0))[:, None])
        parts.append(missing[:, None].astype(np.float64))
    points = np.hstack(parts).astype(np.float32)
    length = (points**2).sum(axis=1)
    count = max(1, min(_NEIGHBOURS, len(points) - 1))
    found = np.empty((len(points), count), np.int64)
    for start in range(0, len(points), 512):
        block = slice(start, start + 512)
        distance = length[None, :] - 2 * points[block] @ points.T
        distance[np.arange(distance.shape[0]), np.arange(start, start + distance.shape[0])] = np.inf
        found[block] = np.argpartition(distance, count - 1, axis=1)[:, :count] if len(points) > 1 else 0
    return found
