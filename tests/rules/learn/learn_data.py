"""Small tables to learn from."""

import csv
from pathlib import Path

import numpy as np

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.learn.problem import Problem, classification


def mixed(count: int = 300, seed: int = 0, noise: float = 0.05) -> Problem:
    """Numbers, whole numbers, text and missing values; the label follows two short rules, some labels are wrong."""
    rng = np.random.default_rng(seed)
    size = rng.normal(0, 1, count)
    age = rng.integers(18, 80, count).astype(np.float64)
    group = rng.choice(np.array(["a", "b", "c", "d", "e"], object), count)
    size[rng.random(count) < 0.1] = np.nan
    group[rng.random(count) < 0.1] = ""
    label = np.where((age > 50) & np.isin(group, ["a", "b"]), 0, np.where(size > 0.3, 1, 2))
    label = np.where(rng.random(count) < noise, rng.integers(0, 3, count), label)
    columns = (
        Column("size", ColumnType.NUMBER, missing=True),
        Column("age", ColumnType.INTEGER),
        Column("group", ColumnType.CATEGORY, values=("a", "b", "c", "d", "e"), other=True, missing=True),
    )
    return classification(columns, {"size": size, "age": age, "group": group}, label, ("low", "high", "none"))


def write_csv(path: Path, problem: Problem, target: str = "y") -> Path:
    """A problem as csv; missing values are empty cells."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*problem.table, target])
        for i in range(len(problem)):
            row = [values[i] for values in problem.table.values()]
            shown = ["" if isinstance(value, float) and np.isnan(value) else value for value in row]
            truth = problem.truth[i]
            writer.writerow([*shown, truth if problem.is_numeric else problem.classes[truth]])
    return path
