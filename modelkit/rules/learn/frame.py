"""Labelled rows out of a csv or parquet file: what type each column has, and which one is to be learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.errors import DataError
from modelkit.files import require_file, shown
from modelkit.rules.columns import MAX_EXACT, Column, ColumnType, date_number, is_date
from modelkit.rules.learn.problem import Problem, classification, regression
from modelkit.rules.table import read_arrow
from modelkit.rules.typecheck import near

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
_TRUTH = {"true": 1.0, "false": 0.0}
_MOST_CLASSES = 20
_MOST_CATEGORIES = 100
_LEAST_ROWS = 10


@dataclass(frozen=True)
class Frame:
    """Columns of a file that rules may look at.

    Attributes:
        columns: What they are.
        table: Their values.
        notes: What was left out, and why; a line each.
        raw: All columns of the file as Python values.
    """

    columns: tuple[Column, ...]
    table: dict[str, np.ndarray]
    notes: tuple[str, ...]
    raw: dict[str, list[Any]]


def read_frame(path: Path, *, without: Sequence[str] = ()) -> Frame:
    """Read a file and find out the type of each column.

    Numbers, whole numbers, true and false, and dates in ISO 8601 are known by their values; all other text is a
    category. Empty cells are missing (in columns of numbers and dates NA, NaN, null and None, too).

    Args:
        path: csv or parquet.
        without: Columns that rules must not look at.

    Raises:
        UsageError: The file does not exist.
        DataError: It cannot be read, has no rows, or no column is left.
    """
    read = read_arrow(require_file(path))
    raw = {name: read[name].to_pylist() for name in read.column_names}
    if not read.num_rows:
        raise DataError(f"{shown(path.name)} has no rows")
    for name in without:
        if name not in raw:
            raise DataError(f"{shown(path.name)} has no column '{name}'{near(name, raw)}")
    columns, table, notes = [], {}, []
    for name, values in raw.items():
        if name in without:
            continue
        found = infer(name, values)
        if isinstance(found, str):
            notes.append(f"column '{name}' is left out: {found}")
            continue
        columns.append(found[0])
        table[name] = found[1]
    if not columns:
        raise DataError(f"{shown(path.name)} has no column that rules can look at", notes)
    return Frame(tuple(columns), table, tuple(notes), raw)


def infer(name: str, values: Sequence[Any]) -> tuple[Column, np.ndarray] | str:
    """The type of a column and its values; or why rules cannot use it.

    Args:
        name: Its name.
        values: Python values as arrow gives them.
    """
    if not name or not name.isprintable():
        return "its name is not printable text"
    for type_, read in _READERS:
        array = _read(values, read)
        if array is None:
            continue
        missing = np.isnan(array)
        if missing.all():
            return "it holds no value"
        if type_ is ColumnType.NUMBER and not np.isfinite(array[~missing]).all():
            return "it holds infinite numbers"
        if type_ is ColumnType.NUMBER and _whole(array[~missing]):
            type_ = ColumnType.INTEGER
        if len(np.unique(array[~missing])) == 1 and not missing.any():
            return "it is the same in all rows"
        return Column(name, type_, missing=bool(missing.any())), array
    if not all(value is None or isinstance(value, str) for value in values):
        return "it holds neither numbers, text nor dates"
    text = np.array([*(value or "" for value in values), ""], object)[:-1]
    known = sorted(set(text) - {""})
    if len(known) > min(_MOST_CATEGORIES, max(2, len(text) // 2)):
        return f"it has {len(known)} different texts"
    if len(known) == 1 and "" not in text:
        return "it is the same in all rows"
    return Column(name, ColumnType.CATEGORY, values=tuple(known), other=True, missing="" in text), text


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all() and (np.abs(values) <= MAX_EXACT).all())


def _read(values: Sequence[Any], read: Any) -> np.ndarray | None:
    """All values as doubles, NaN where missing; None where one is nothing of the kind."""
    try:
        found = [math.nan if _is_missing(value) else read(value) for value in values]
    except (ValueError, TypeError, KeyError):
        return None
    return np.array(found, np.float64)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


def _boolean(value: Any) -> float:
    if isinstance(value, bool):
        return float(value)
    return _TRUTH[value.strip().lower()] if isinstance(value, str) else _TRUTH[value]


def _number(value: Any) -> float:
    if isinstance(value, bool) or is_date(value) or isinstance(value, bytes):
        raise TypeError
    return float(value)


def _date(value: Any) -> float:
    return date_number(value if isinstance(value, str) else value.isoformat(), ColumnType.DATE)


def _datetime(value: Any) -> float:
    return date_number(value if isinstance(value, str) else value.isoformat(), ColumnType.DATETIME)


_READERS = (
    (ColumnType.BOOLEAN, _boolean),
    (ColumnType.NUMBER, _number),
    (ColumnType.DATE, _date),
    (ColumnType.DATETIME, _datetime),
)


def labelled(frame: Frame, target: str, outcome: str = "auto") -> tuple[Problem, tuple[str, ...]]:
    """The problem that a file states.

    Args:
        frame: The file, read without the target.
        target: The column that is to be learned.
        outcome: ``label``, ``number``, or ``auto``: numbers where the target is numeric and has parts of whole
            numbers or more than 20 values.

    Returns:
        The problem, and notes: a line each.

    Raises:
        DataError: There is nothing to learn: too few rows, or only one label.
    """
    values = frame.raw[target]
    known = np.array([not _is_missing(value) for value in values])
    notes = [] if known.all() else [f"{int((~known).sum())} rows without '{target}' are left out"]
    table = {name: array[known] for name, array in frame.table.items()}
    kept = [value for value, there in zip(values, known, strict=True) if there]
    if len(kept) < _LEAST_ROWS:
        raise DataError(f"'{target}' is known in {len(kept)} rows; at least {_LEAST_ROWS} are needed")
    numbers = _read(kept, _number)
    if outcome == "number" and numbers is None:
        raise DataError(f"'{target}' holds something other than numbers", hint="--outcome label learns labels")
    many = numbers is not None and (not _whole(numbers) or len(np.unique(numbers)) > _MOST_CLASSES)
    if numbers is not None and (outcome == "number" or (outcome == "auto" and many)):
        if not np.isfinite(numbers).all() or len(np.unique(numbers)) < 2:
            raise DataError(f"'{target}' must hold finite numbers that differ")
        return regression(frame.columns, table, numbers), tuple(notes)
    if numbers is not None and _whole(numbers) and numbers.min() >= 0:
        whole, codes = np.unique(numbers, return_inverse=True)
        classes: tuple[str | int, ...] = tuple(int(value) for value in whole)
    else:
        text, codes = np.unique(np.array([str(value).strip() for value in kept]), return_inverse=True)
        classes = tuple(str(value) for value in text)
    if len(classes) < 2:
        raise DataError(f"'{target}' is '{classes[0]}' in all rows; there is nothing to learn")
    if len(classes) > max(_MOST_CLASSES, len(kept) // 5):
        raise DataError(f"'{target}' has {len(classes)} different labels in {len(kept)} rows", hint="is it a name?")
    return classification(frame.columns, table, codes.astype(np.int64), classes), tuple(notes)
