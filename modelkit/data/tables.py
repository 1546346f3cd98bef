"""Datasets in csv and parquet: one column for each feature, or one for each input; read in blocks by pyarrow.

Two layouts. *Features*: the model has one input ``[N, F]`` and the columns, in the order of the file, are
its F features. *Named*: the columns are called as the inputs, which are ``[N]`` or ``[N, 1]``. A column
`label`, `labels` or `target` that is no input holds the labels. Integer columns may feed a float input,
since a table has a type for each column and csv has none at all; strings only feed string inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.data.check import Problems, cast, check_names, describe_spec, expected, family, find_bad
from modelkit.data.dataset import Dataset, Rows, hash_files
from modelkit.data.labels import check_labels
from modelkit.data.npyformat import one_line
from modelkit.data.plan import plan_batches
from modelkit.data.reader import RowReader, pick
from modelkit.data.tablefiles import CsvFile, ParquetFile, TableFile
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_COLUMNS = ("label", "labels", "target")
_LABELS_HINT = "a column label, labels or target"


class TableDataset(Dataset):
    """A csv or parquet file.

    Args:
        path: The file.
        specs: The model's inputs.
        format: "csv" or "parquet".
        need_labels: Labels must be there.
        classes: Classes that the model tells apart, where known.

    Raises:
        DataError: It is damaged or does not fit the model; all mismatches at once.
    """

    def __init__(
        self, path: Path, specs: Sequence[TensorSpec], *, format: str, need_labels: bool, classes: int | None
    ) -> None:
        self.name, self.format, self.path = path.name, format, path
        self.plan = plan_batches(specs)
        self._specs = {spec.name: spec for spec in specs}
        problems, notes = Problems(path.name), dict[str, str]()
        kind = CsvFile if format == "csv" else ParquetFile
        self._file: TableFile = kind(path)
        names = self._file.columns
        hint = expected(specs, names, _LABELS_HINT if need_labels else f"{_LABELS_HINT} if there are labels")
        for name in sorted({n for n in names if names.count(n) > 1}):
            problems.add(f"the column '{name}' is there twice")
        if self.format == "csv" and all(_is_number(n) for n in names):
            problems.add(f"its first line is data ({', '.join(names[:4])}, ...); it must name the columns")
        problems.raise_any(hint)

        label_columns = [n for n in names if n in LABEL_COLUMNS and n not in self._specs]
        if len(label_columns) > 1:
            problems.add(f"the columns {' and '.join(label_columns)} could each be the labels; keep one")
        elif need_labels and not label_columns:
            problems.add("a column 'label' is missing; labels are needed to measure quality")
        features = [n for n in names if n not in label_columns]
        self._columns = self._assign(specs, features, problems)
        problems.raise_any(hint)
        self._file.plan({c: self._specs[i].dtype for i, cs in self._columns.items() for c in cs}, label_columns[:1])
        self.count = self._check_values(label_columns[:1], classes, problems, notes)
        problems.raise_any(hint)
        self.notes = tuple(notes.values())

    def _assign(self, specs: Sequence[TensorSpec], columns: list[str], problems: Problems) -> dict[str, list[str]]:
        """Say which columns feed which input."""
        if set(self.plan.axes.values()) != {0}:
            problems.add("a table feeds inputs whose first dimension counts the samples; this model's does not")
            return {}
        scalar = all(len(s.shape) == 1 or (len(s.shape) == 2 and s.shape[1] == 1) for s in specs)
        if scalar and (len(specs) > 1 or len(columns) != 1 or specs[0].name in columns):
            check_names(columns, specs, "column", problems)
            return {spec.name: [spec.name] for spec in specs}
        if len(specs) != 1 or len(specs[0].shape) not in (1, 2):
            wants = ", ".join(f"{s.name} {describe_spec(s)}" for s in specs)
            problems.add(f"a table feeds one input [N, F] or inputs of one value each; the model takes {wants}")
            return {}
        wanted = specs[0].shape[-1]
        if isinstance(wanted, int) and len(columns) != wanted and len(specs[0].shape) == 2:
            problems.add(f"input '{specs[0].name}' takes {wanted} features, the table has {len(columns)} columns")
        return {specs[0].name: columns}

    def _check_values(self, label: list[str], classes: int | None, problems: Problems, notes: dict[str, str]) -> int:
        """Read all of the table once: types, missing and bad values, labels. Returns the number of rows."""
        count, bad, kept = 0, set[str](), []
        try:
            for block in self._file.blocks():
                for name, columns in self._columns.items():
                    for column in (c for c in columns if c not in bad):
                        problem = self._column_problem(name, column, block.column(column), count, notes)
                        if problem:
                            bad.add(column)
                            problems.add(problem)
                kept += [block.column(c) for c in label]
                count += block.num_rows
        except DataError as error:
            problems.add(error.message)
            return count
        if count == 0:
            problems.add("it has no rows")
        elif label:
            self.labels = _labels(label[0], kept, classes, problems)
        return count

    def _column_problem(
        self, name: str, column: str, values: pa.Array, start: int, notes: dict[str, str]
    ) -> str | None:
        spec = self._specs[name]
        have = _arrow_family(values)
        want = family(spec.dtype)
        if have == "null" and len(values):
            return f"column '{column}' is empty from row {start} (counted from 0)"
        if have != want and not (have == "int" and want == "float"):
            return f"column '{column}' holds {values.type}, input '{name}' takes {describe_spec(spec)}"
        if values.null_count:
            row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            return f"column '{column}' has no value (or NaN) at row {start + row} (counted from 0)"
        array = _to_numpy(values)
        if have != want:
            with np.errstate(over="ignore"):
                inexact = array.astype(spec.dtype).astype(np.float64) != array.astype(np.float64)
            if inexact.any():
                row = int(np.argmax(inexact))
                return (
                    f"column '{column}' has {array[row]} at row {start + row} (counted from 0), "
                    f"which {spec.dtype.name} cannot hold exactly"
                )
            notes[name] = f"integer columns were read as {spec.dtype.name} for input '{name}'"
        found = find_bad(array, spec.dtype)
        return f"column '{column}' has {found[1]} at row {start + found[0]} (counted from 0)" if found else None

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples (see `Dataset.rows`)."""
        for block in pick(self._open, self.count, size, indices):
            yield Rows(block, {}, len(next(iter(block.values()))))

    def _open(self) -> RowReader:
        return _TableReader(self._file, self._specs, self._columns, self.plan.axes)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the file."""
        return hash_files([self._file.path], self._file.path)


class _TableReader(RowReader):
    """Reads a table's rows as the model's inputs."""

    def __init__(
        self,
        file: TableFile,
        specs: dict[str, TensorSpec],
        columns: dict[str, list[str]],
        axes: dict[str, int | None],
    ) -> None:
        self._file, self._specs, self._columns, self._axes = file, specs, columns, axes
        self._blocks = file.blocks()
        self._held: pa.RecordBatch | None = None

    def _take(self, count: int) -> Iterator[pa.RecordBatch]:
        while count:
            if self._held is None or not self._held.num_rows:
                self._held = next(self._blocks, None)
                if self._held is None:
                    raise DataError(f"{self._file.path.name} changed while it was read: it has fewer rows now")
            piece = self._held.slice(0, count)
            self._held = self._held.slice(piece.num_rows)
            count -= piece.num_rows
            yield piece

    def skip(self, count: int) -> None:
        for _ in self._take(count):
            pass

    def read(self, count: int) -> dict[str, np.ndarray]:
        pieces = list(self._take(count))
        rows = {}
        for name, columns in self._columns.items():
            spec = self._specs[name]
            out = np.empty((count, len(columns)), spec.dtype)
            start = 0
            for piece in pieces:
                for i, column in enumerate(columns):
                    values = _to_numpy(piece.column(column))
                    out[start : start + len(values), i] = cast(values, spec.dtype)
                start += piece.num_rows
            rows[name] = out[:, 0] if len(spec.shape) == 1 else out
        return rows

    def close(self) -> None:
        self._blocks.close()


def _to_numpy(values: pa.Array) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    array: np.ndarray = values.to_numpy(zero_copy_only=False)
    return array


def _arrow_family(values: pa.Array) -> str:
    import pyarrow as pa

    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    for test, name in (
        (pa.types.is_floating, "float"),
        (pa.types.is_integer, "int"),
        (pa.types.is_boolean, "bool"),
        (pa.types.is_string, "string"),
        (pa.types.is_large_string, "string"),
        (pa.types.is_null, "null"),
    ):
        if test(kind):
            return name
    return "other"


def _labels(column: str, pieces: list[pa.Array], classes: int | None, problems: Problems) -> np.ndarray | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pa.chunked_array(pieces)
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        problems.add(f"the label column '{column}' has no value (or NaN) at row {row} (counted from 0)")
        return None
    kind = _arrow_family(values)
    if kind == "string":
        # csv has no types: labels are integers if all of them read as integers.
        for wanted in (pa.int64(), pa.float64()):
            try:
                values = pc.cast(values.cast(pa.string()), wanted)
                break
            except pa.ArrowInvalid as error:
                reason = one_line(error)
        else:
            problems.add(f"the label column '{column}' holds something other than numbers: {reason}")
            return None
    elif kind not in ("int", "float", "bool"):
        problems.add(f"the label column '{column}' holds {values.type}; labels must be numbers")
        return None
    return check_labels(values.to_numpy(), None, classes, problems)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
