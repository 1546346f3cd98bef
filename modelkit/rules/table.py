"""Tables of rows for rule sets: out of Python values, csv and parquet, as the arrays that `evaluate` takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelkit.errors import DataError
from modelkit.files import Kind, require_file, shown, sniff
from modelkit.rules.columns import Column, ColumnType, Value, date_number, date_text, is_date, number_text
from modelkit.rules.evaluate import Table, is_missing
from modelkit.rules.model import RuleSet
from modelkit.rules.typecheck import near

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Value]
"""One row: text for categories ("" is missing), doubles for the others (NaN is missing)."""

_MAX_PROBLEMS = 20
_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "1": 1.0, "0": 0.0}


def table_of(rules: RuleSet, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """A table of rows that hold a value for each column."""
    return {
        column.name: np.array([row[column.name] for row in rows], object if column.type.is_text else np.float64)
        for column in rules.columns
    }


def row_of(table: Table, index: int) -> Row:
    """One row of a table."""
    return {name: values[index] if values.dtype == object else float(values[index]) for name, values in table.items()}


def shown_row(rules: RuleSet, row: Row) -> dict[str, Any]:
    """A row as people and JSON write it: dates as text, booleans as such, None for missing."""
    return {column.name: shown_value(column, row[column.name]) for column in rules.columns}


def shown_value(column: Column, value: Value) -> str | float | int | bool | None:
    """A value as people and JSON write it."""
    if isinstance(value, str):
        return value or None
    if math.isnan(value):
        return None
    if column.type in (ColumnType.DATE, ColumnType.DATETIME):
        return date_text(value, column.type)
    if column.type is ColumnType.BOOLEAN and value in (0.0, 1.0):
        return bool(value)
    text = number_text(value)
    return int(text) if text.lstrip("-").isdigit() else float(value)


def row_text(rules: RuleSet, row: Row, only: Sequence[str] | None = None) -> str:
    """A row on one line: ``age = 17, income missing``.

    Args:
        rules: The rule set.
        row: The row.
        only: Columns to show; all by default.
    """
    parts = []
    for column in rules.columns:
        if only is None or column.name in only:
            value = shown_value(column, row[column.name])
            written = str(value).lower() if isinstance(value, bool) else value
            parts.append(f"{column.name} missing" if value is None else f"{column.name} = {written}")
    return ", ".join(parts)


def as_table(rules: RuleSet, values: Mapping[str, Any], *, name: str = "the data", check: bool = True) -> Table:
    """Make a table of sequences or arrays of Python or numpy values.

    Args:
        rules: The rule set.
        values: Column name -> values: numbers, booleans, text, dates, None or NaN for missing. More columns than
            the set has are ignored.
        name: What to call the data in errors.
        check: Whether to refuse what the columns do not declare: missing values, values outside of the range,
            unknown categories, parts of whole numbers.

    Raises:
        DataError: It does not fit; with all problems.
    """
    problems = [
        f"column '{column.name}' is missing{near(column.name, values)}"
        for column in rules.columns
        if column.name not in values
    ]
    table: dict[str, np.ndarray] = {}
    for column in rules.columns:
        if column.name not in values:
            continue
        try:
            array = _array(column, values[column.name])
        except ValueError as error:
            problems.append(f"column '{column.name}': {error}")
            continue
        table[column.name] = array
        if check:
            problems += _undeclared(column, array)
    lengths = {len(array) for array in table.values()}
    if len(lengths) > 1:
        problems.append(f"columns have different lengths: {sorted(lengths)}")
    if problems:
        raise DataError(f"{name} does not fit the rules: {problems[0]}", problems[:_MAX_PROBLEMS], _HINT)
    return table


_HINT = "columns say what may occur: range, values, other, missing"


def _array(column: Column, values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub" and not column.type.is_text:
        return np.asarray(values, np.float64).reshape(-1)
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return _times(column, values)
    items = [values] if isinstance(values, str) else list(values)
    if column.type.is_text:
        return np.array([_text(value, row) for row, value in enumerate(items)] + [""], object)[:-1]
    return np.array([_number(column, value, row) for row, value in enumerate(items)], np.float64)


def _times(column: Column, values: np.ndarray) -> np.ndarray:
    if column.type is ColumnType.DATE:
        return np.where(np.isnat(values), np.nan, values.astype("datetime64[D]").astype(np.float64))
    if column.type is ColumnType.DATETIME:
        return np.where(np.isnat(values), np.nan, values.astype("datetime64[us]").astype(np.float64) / 1e6)
    raise ValueError(f"it holds dates; a {column.type} is expected")


def _text(value: Any, row: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return str(value)
    raise ValueError(f"row {row} (counted from 0) holds {value!a}; text is expected")


def _number(column: Column, value: Any, row: int) -> float:
    if value is None or value == "":
        return math.nan
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    try:
        if is_date(value):
            return date_number(value.isoformat(), column.type)
        if isinstance(value, str) and column.type in (ColumnType.DATE, ColumnType.DATETIME):
            return date_number(value, column.type)
        if isinstance(value, str) and column.type is ColumnType.BOOLEAN:
            return _WORDS[value.strip().lower()]
        if isinstance(value, str):
            return float(value)
    except (ValueError, KeyError) as error:
        raise ValueError(f"row {row} (counted from 0) holds {value!a}, which is no {column.type}") from error
    raise ValueError(f"row {row} (counted from 0) holds {value!a}; a {column.type} is expected")


def _undeclared(column: Column, values: np.ndarray) -> list[str]:
    """Values that the column does not declare, the first of each kind."""
    missing = is_missing(values)
    bad: list[tuple[np.ndarray, str]] = []
    if not column.missing:
        bad.append((missing, "has no value, and the column is not declared missing"))
    if column.type.is_text:
        if not column.other:
            known = {"", *column.values}
            bad.append((np.array([value not in known for value in values], bool), "is not a declared category"))
    else:
        there = np.where(missing, 0.0, values)
        if column.low is not None:
            bad.append((~missing & (there < column.low), "is below the valid range"))
        if column.high is not None:
            bad.append((~missing & (there > column.high), "is above the valid range"))
        if column.type.is_whole:
            bad.append((~missing & (there != np.rint(there)), "is not a whole number"))
        if column.type is ColumnType.BOOLEAN:
            bad.append((~missing & ~np.isin(there, (0.0, 1.0)), "is neither true nor false"))
    found = []
    for where, text in bad:
        if where.any():
            row = int(where.argmax())
            value = shown_value(column, values[row])
            shown_ = "" if value is None else f" ({value!a})"
            found.append(f"column '{column.name}', row {row} (counted from 0){shown_}: {text}")
    return found


def read_table(rules: RuleSet, path: Path, *, label: str | None = None) -> tuple[Table, np.ndarray | None]:
    """Read a csv or parquet file with a column for each column of the rules.

    Args:
        rules: The rule set.
        path: The file.
        label: Name of the column that holds the true results; a column ``label``, ``labels`` or ``target`` that is
            no column of the rules without.

    Returns:
        The table, and the labels as text (float64 for rule sets that predict numbers) where there are any.

    Raises:
        UsageError: The file does not exist.
        DataError: It cannot be read, or does not fit the rules.
    """
    read = read_arrow(require_file(path))
    names = read.column_names
    values = {
        column.name: plain_values(read[column.name], column) for column in rules.columns if column.name in names
    }
    table = as_table(rules, values, name=shown(path.name))
    chosen = label or next((n for n in ("label", "labels", "target") if n in names and n not in rules.column), None)
    if label is not None and label not in names:
        raise DataError(f"{shown(path.name)} has no column '{label}'{near(label, names)}")
    if chosen is None:
        return table, None
    given = read[chosen].to_pylist()
    if rules.is_numeric:
        try:
            return table, np.array([math.nan if value is None else float(value) for value in given], np.float64)
        except ValueError as error:
            raise DataError(f"the column '{chosen}' holds something other than numbers: {error}") from error
    return table, np.array([*("" if value is None else _label(value) for value in given), ""], object)[:-1]


def _label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_arrow(path: Path) -> pa.Table:
    """Read a csv (all columns as text) or parquet file.

    Raises:
        DataError: It cannot be read.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if sniff(path) is Kind.PARQUET:
            return parquet.read_table(path)
        with path.open("rb") as stream:
            head = stream.readline(1 << 20)
        delimiter = max(",;\t", key=lambda sign: head.count(sign.encode()))
        names = head.decode("utf-8-sig", "replace").strip().split(delimiter)
        types = {name.strip().strip('"'): pa.string() for name in names}
        options = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter), convert_options=options)
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(f"{shown(path.name)} cannot be read: {text}", hint="csv and parquet are read") from error


def plain_values(values: pa.ChunkedArray, column: Column) -> Any:
    """Values of an arrow column: numpy where that loses nothing, else Python's."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.combine_chunks().dictionary_decode()
        kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        if column.type.is_text:
            return [None if value is None else str(value) for value in values.to_pylist()]
        return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    if pa.types.is_string(kind) and column.type in (ColumnType.NUMBER, ColumnType.INTEGER):
        try:
            blank = pc.if_else(pc.equal(values, ""), None, values)
            return np.asarray(blank.cast(pa.float64()).to_numpy(), np.float64)
        except pa.ArrowInvalid:
            return values.to_pylist()
    return values.to_pylist()
