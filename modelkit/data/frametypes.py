"""Tells what the columns of a table hold, and turns their values into doubles or strings."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.data.frame import Field, Kind
from modelkit.errors import DataError
from modelkit.files import shown

NO_VALUE = ("", "NA", "N/A", "n/a", "na", "nan", "NaN", "NAN", "null", "NULL", "None", "?", "-", ".")
"""What stands for a missing number, date or boolean in text. In a category only the empty text is missing."""

_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_DAY = 86_400.0
_MOSTLY = 0.98  # share of a column's values that must fit its type before the others count as errors in the file
_LONG = 40  # characters; longer on average, with spaces, is text that people wrote
_WORDS = 5


def infer(name: str, raw: Any, notes: list[str]) -> Field:
    """Tell a column's kind by its values.

    Args:
        name: Its name.
        raw: An arrow array (all text, where it comes from csv) or a numpy array [N].
        notes: Added to, where a reader should know something.
    """
    values, kind = _typed(raw)
    if kind is None:
        values, kind = _from_text(values)
        if kind is Kind.category:
            _note_odd_numbers(name, values, notes)
            if _is_text(values):
                kind = Kind.text
    if not kind.is_string and np.isinf(values).any():
        notes.append(f"column '{name}': {int(np.isinf(values).sum())} infinite values count as missing")
        values = np.where(np.isinf(values), np.nan, values)
    return Field(name, kind, values, whole=_is_whole(kind, values))


def as_kind(name: str, raw: Any, kind: Kind, path: Path) -> Field:
    """Turn a column into a known kind.

    Raises:
        DataError: A value is of another kind; with its row.
    """
    values, found = _typed(raw)
    if kind.is_string:
        if found is None:
            return Field(name, kind, values)
        texts = np.array([*(_number_text(v) for v in values), ""], object)[:-1]
        return Field(name, kind, texts)
    if found is None:
        values = _parsed(name, values, kind, path)
    elif found is not kind and {found, kind} not in ({Kind.number, Kind.boolean}, {Kind.date, Kind.datetime}):
        if not np.isnan(values).all():
            raise DataError(
                f"{shown(path.name)}: column '{shown(name)}' holds {_plural(found)}; {_plural(kind)} are expected",
                hint="the model knows its columns by name and type",
            )
    elif {found, kind} == {Kind.date, Kind.datetime}:
        values = values * _DAY if kind is Kind.datetime else np.floor(values / _DAY)
    return Field(name, kind, np.where(np.isinf(values), np.nan, values), whole=_is_whole(kind, values))


def _plural(kind: Kind) -> str:
    return {"category": "categories"}.get(kind.value, f"{kind.value}s")


def _typed(raw: Any) -> tuple[np.ndarray, Kind | None]:
    """Values, and the kind that the file itself gives them; None for text."""
    if isinstance(raw, np.ndarray):
        return _typed_array(raw)
    import pyarrow as pa

    kind = raw.type
    if pa.types.is_dictionary(kind):
        raw = raw.dictionary_decode()
        kind = raw.type
    if pa.types.is_boolean(kind):
        return np.array(raw.cast(pa.int8()).cast(pa.float64()).to_numpy(zero_copy_only=False), float), Kind.boolean
    if pa.types.is_date(kind):
        days = raw.cast(pa.date32()).cast(pa.int32()).cast(pa.float64())
        return np.array(days.to_numpy(zero_copy_only=False), float), Kind.date
    if pa.types.is_timestamp(kind):
        micro = raw.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return np.array(
            micro.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), float
        ) / 1e6, Kind.datetime
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return np.array(raw.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), float), Kind.number
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array([*("" if v is None else v for v in raw.to_pylist()), ""], object)[:-1], None
    raise DataError(f"a column of type {kind} cannot be used", hint="numbers, text, booleans and dates can")


def _typed_array(raw: np.ndarray) -> tuple[np.ndarray, Kind | None]:
    if raw.dtype.kind == "b":
        return raw.astype(float), Kind.boolean
    if raw.dtype.kind in "iuf":
        return raw.astype(float), Kind.number
    if raw.dtype.kind == "M":
        seconds = raw.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(raw), np.nan, seconds), Kind.datetime
    return np.array([*(str(value) for value in raw), ""], object)[:-1], None


def _from_text(values: np.ndarray) -> tuple[np.ndarray, Kind]:
    """Numbers, booleans or dates if all texts read as such, else the texts as categories."""
    missing = np.isin(values, NO_VALUE)
    if missing.all():
        return np.full(len(values), np.nan), Kind.number
    for kind in (Kind.boolean, Kind.number, Kind.date, Kind.datetime):
        parsed = np.full(len(values), np.nan)
        good = _parse(values[~missing], kind)
        if good is not None:
            parsed[~missing] = good
            return parsed, kind
    return values, Kind.category


def _parse(texts: np.ndarray, kind: Kind) -> np.ndarray | None:
    """Texts without missing ones as doubles; None if one does not fit."""
    try:
        if kind is Kind.boolean:
            return _booleans(texts)
        if kind is Kind.number:
            return texts.astype(float)
        if kind is Kind.date:
            days = [dt.date.fromisoformat(text).toordinal() if len(text) == 10 else _fail(text) for text in texts]
            return np.array(days, float) - dt.date(1970, 1, 1).toordinal()
        return np.array([_seconds(text) for text in texts], float)
    except ValueError:
        return None


def _booleans(texts: np.ndarray) -> np.ndarray | None:
    true = np.isin(texts, _TRUE)
    return true.astype(float) if (true | np.isin(texts, _FALSE)).all() else None


def _seconds(text: str) -> float:
    if len(text) < 10 or text[4] != "-":  # "20240101" is a number, not a moment
        raise ValueError(text)
    moment = dt.datetime.fromisoformat(text)
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(seconds=1)


def _fail(text: str) -> int:
    raise ValueError(text)


def _parsed(name: str, values: np.ndarray, kind: Kind, path: Path) -> np.ndarray:
    missing = np.isin(values, NO_VALUE)
    result = np.full(len(values), np.nan)
    good = _parse(values[~missing], kind)
    if good is None:
        for row in np.flatnonzero(~missing):
            if _parse(values[row : row + 1], kind) is None:
                raise DataError(
                    f"{shown(path.name)}: column '{shown(name)}' holds {str(values[row])[:60]!a} in row {row + 1}; "
                    f"{_plural(kind)} are expected",
                    hint="the model knows its columns by name and type",
                )
    result[~missing] = good
    return result


def _note_odd_numbers(name: str, values: np.ndarray, notes: list[str]) -> None:
    """Say which texts keep a column from being one of numbers."""
    sample = values[:20_000]
    odd = [text for text in sample if text not in NO_VALUE and _parse(np.array([text], object), Kind.number) is None]
    if len(odd) < (1 - _MOSTLY) * len(sample):
        listed = ", ".join(f"'{shown(text[:30])}'" for text in sorted(set(odd))[:3])
        notes.append(f"column '{name}' holds numbers, but for {listed}: it counts as a category")


def _is_text(values: np.ndarray) -> bool:
    """Whether strings are prose: long, with spaces, hardly any of them twice."""
    there = values[values != ""][:5000]
    distinct = set(there.tolist())
    words = float(np.mean([text.count(" ") + 1 for text in there])) if len(there) else 0.0
    length = float(np.mean([len(text) for text in there])) if len(there) else 0.0
    return (
        len(distinct) > 20 and len(distinct) > 0.3 * len(there) and (words >= _WORDS or length >= _LONG) and words > 2
    )


def _is_whole(kind: Kind, values: np.ndarray) -> bool:
    if kind is not Kind.number:
        return False
    there = values[~np.isnan(values)]
    return bool((there == np.rint(there)).all()) and len(there) > 0


def _number_text(value: float) -> str:
    """A number as the text of a category: whole ones without a point, missing as nothing."""
    if np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
