"""Reads csv, tsv, parquet and npz files as typed tables, and says which line of a file is wrong."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelkit.data.frame import Frame, Kind
from modelkit.data.frametypes import as_kind, infer
from modelkit.data.npyformat import one_line
from modelkit.errors import DataError
from modelkit.files import Kind as FileKind
from modelkit.files import require_file, shown, sniff

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 32 << 20
_SHOWN_LINES = 5


def read_frame(path: Path, kinds: Mapping[str, Kind] | None = None, need: list[str] | None = None) -> Frame:
    """Read a table.

    Args:
        path: A csv or tsv (first line: names; comma, semicolon or tab), parquet, or npz file. Of an npz, arrays [N]
            are columns, and an array ``x`` [N, F] gives the columns ``x_0``, ``x_1``, ...
        kinds: What columns hold, where that is known; the others are told by their values.
        need: Columns that are wanted; the others are not read. None for all.

    Raises:
        UsageError: The file does not exist.
        DataError: It cannot be read as a table: other kinds of files, a wrong encoding, lines of another length,
            names that repeat, no rows.
    """
    require_file(path)
    found = sniff(path)
    if found is FileKind.PARQUET:
        raw = _parquet(path)
    elif found in (FileKind.NPZ, FileKind.ZIP):
        raw = _npz(path)
    else:
        raw = _csv(path)
    _check_names(path, list(raw))
    known = dict(kinds or {})
    wanted = list(raw) if need is None else [name for name in raw if name in need]
    notes: list[str] = []
    fields = {}
    for name in wanted:
        fields[name] = as_kind(name, raw[name], known[name], path) if name in known else infer(name, raw[name], notes)
    rows = len(next(iter(raw.values()))) if raw else 0
    if rows == 0:
        raise DataError(f"'{shown(path)}' has no rows", hint="the first line names the columns, the others are rows")
    return Frame(path.name, fields, rows, tuple(notes))


def _check_names(path: Path, names: list[str]) -> None:
    nameless = [number for number, name in enumerate(names, 1) if not name.strip()]
    if nameless:
        raise DataError(
            f"{shown(path.name)}: column {nameless[0]} has no name", hint="the first line of a csv names its columns"
        )


def _csv(path: Path) -> dict[str, Any]:
    """Columns as arrow arrays of strings."""
    import pyarrow as pa
    from pyarrow import csv

    _check_encoding(path)
    with path.open("rb") as stream:
        head = stream.readline(1 << 20)
    if not head.strip():
        raise DataError(f"'{shown(path)}' is empty", hint="the first line of a csv names its columns")
    delimiter = max(",;\t", key=lambda sign: head.count(sign.encode()))
    names = _header(path, head, delimiter)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        listed = ", ".join(f"'{shown(name)}'" for name in repeated)
        raise DataError(f"{shown(path.name)}: the column {listed} is there twice", hint="rename one of them")
    bad: list[tuple[int, int, int]] = []

    def refuse(row: Any) -> str:
        bad.append((row.number or 0, row.actual_columns, row.expected_columns))
        return "skip"

    try:
        read = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse, ignore_empty_lines=True
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{shown(path.name)} cannot be read: {one_line(error)}") from error
    if bad:
        lines = [
            f"line {line} has {got} values, the first line names {want}" for line, got, want in bad[:_SHOWN_LINES]
        ]
        more = f" (and {len(bad) - _SHOWN_LINES} more)" if len(bad) > _SHOWN_LINES else ""
        raise DataError(
            f"{shown(path.name)}: {len(bad)} {'lines have' if len(bad) > 1 else 'line has'} another number of values "
            f"than the first line: {lines[0]}",
            [*lines[:-1], lines[-1] + more] if len(lines) > 1 else [],
            "values that hold the delimiter need quotes",
        )
    return {name: read[name].combine_chunks() for name in names}


def _header(path: Path, head: bytes, delimiter: str) -> list[str]:
    import csv

    text = head.decode("utf-8-sig").rstrip("\r\n")
    names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter))]
    if names and all(_is_number(name) for name in names):
        raise DataError(
            f"the first line of {shown(path.name)} is data ({', '.join(names[:4])}, ...)",
            hint="the first line of a csv names its columns",
        )
    return names


def _check_encoding(path: Path) -> None:
    """Refuse what is not UTF-8, with the line."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with path.open("rb") as stream:
        start = stream.read(4)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(
                f"{shown(path.name)} is UTF-16, and UTF-8 is expected",
                hint=f"iconv -f UTF-16 -t UTF-8 {shown(path.name)} > utf8.csv",
            )
        stream.seek(0)
        while block := stream.read(1 << 20):
            if b"\0" in block:
                raise DataError(f"{shown(path.name)} is not text: csv, tsv, parquet and npz files are read")
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                line += block.count(b"\n", 0, error.start)
                raise DataError(
                    f"{shown(path.name)}, line {line}: not UTF-8 text",
                    hint=f"if it is Latin-1: iconv -f LATIN1 -t UTF-8 {shown(path.name)} > utf8.csv",
                ) from error
            line += block.count(b"\n")


def _parquet(path: Path) -> dict[str, pa.Array]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise DataError(f"{shown(path.name)}: the column '{shown(repeated[0])}' is there twice")
            read = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{shown(path.name)} cannot be read: {one_line(error)}", hint="is the file complete?"
        ) from error
    return {name: read[name].combine_chunks() for name in names}


def _npz(path: Path) -> dict[str, np.ndarray]:
    from modelkit.data.npz import members

    found: dict[str, np.ndarray] = {}
    hint = "arrays [N] are columns, an array x [N, F] gives x_0, x_1, ..."
    for name, stored in members(path).items():
        array = stored.load()
        if array.ndim not in (1, 2):
            raise DataError(
                f"{shown(path.name)}: the array '{shown(name)}' has {array.ndim} dimensions; one or two are expected",
                hint=hint,
            )
        split = {name: array} if array.ndim == 1 else {f"{name}_{i}": array[:, i] for i in range(array.shape[1])}
        repeated = [each for each in split if each in found]
        if repeated:
            raise DataError(f"{shown(path.name)}: the column '{shown(repeated[0])}' is there twice", hint=hint)
        found.update(split)
    lengths = {len(array) for array in found.values()}
    if len(lengths) > 1:
        raise DataError(f"{shown(path.name)}: its arrays have different lengths: {sorted(lengths)}", hint=hint)
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
