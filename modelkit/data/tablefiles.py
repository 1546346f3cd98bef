"""The files under a table: csv and parquet, read block by block by pyarrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.data.check import family
from modelkit.data.npyformat import one_line
from modelkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_CSV_BLOCK = 8 << 20  # a line must fit into a block
_PARQUET_ROWS = 4096


class TableFile(ABC):
    """A file with named columns.

    Attributes:
        path: The file.
        columns: Names of its columns, in its order.
    """

    path: Path
    columns: list[str]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns = self._read_columns()
        self.dtypes: dict[str, np.dtype] = {}
        self.labels: list[str] = []

    def plan(self, dtypes: dict[str, np.dtype], labels: list[str]) -> None:
        """Say which columns are wanted, and for the features the dtype of the input that they feed."""
        self.dtypes, self.labels = dtypes, labels

    @abstractmethod
    def _read_columns(self) -> list[str]:
        """Return the names of the columns."""

    @abstractmethod
    def blocks(self) -> Generator[pa.RecordBatch]:
        """Stream the wanted columns.

        Raises:
            DataError: The file is damaged, or a value is not of the wanted type.
        """


class CsvFile(TableFile):
    """A csv file with a header line, delimited by the comma, semicolon or tab that its header has most."""

    def _read_columns(self) -> list[str]:
        with self.path.open("rb") as stream:
            head = stream.readline(1 << 20)
        self._delimiter = max(",;\t", key=lambda sign: head.count(sign.encode()))
        import pyarrow as pa
        from pyarrow import csv

        options = csv.ParseOptions(delimiter=self._delimiter)
        try:
            names = csv.read_csv(pa.py_buffer(head.rstrip(b"\r\n") + b"\n"), parse_options=options).column_names
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{self.path.name} has no readable first line: {one_line(error)}",
                hint="the first line of a csv names its columns",
            ) from error
        return list(names)

    def blocks(self) -> Generator[pa.RecordBatch]:
        """Stream the wanted columns (see `TableFile.blocks`)."""
        import pyarrow as pa
        from pyarrow import csv

        wide = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "string": pa.string()}
        types = {
            name: pa.uint64() if dtype == np.uint64 else wide[family(dtype)] for name, dtype in self.dtypes.items()
        }
        types.update(dict.fromkeys(self.labels, pa.string()))
        with _explained(self.path):
            reader = csv.open_csv(
                self.path,
                read_options=csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
                parse_options=csv.ParseOptions(delimiter=self._delimiter),
                convert_options=csv.ConvertOptions(column_types=types, include_columns=list(types)),
            )
            with reader:
                yield from reader


class ParquetFile(TableFile):
    """A parquet file."""

    def _read_columns(self) -> list[str]:
        import pyarrow.parquet as pq

        with _explained(self.path), pq.ParquetFile(self.path) as file:
            names: list[str] = file.schema_arrow.names
        return names

    def blocks(self) -> Generator[pa.RecordBatch]:
        """Stream the wanted columns (see `TableFile.blocks`)."""
        import pyarrow.parquet as pq

        with _explained(self.path), pq.ParquetFile(self.path) as file:
            columns = [*self.dtypes, *self.labels]
            yield from file.iter_batches(_PARQUET_ROWS, columns=columns, use_threads=False)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises into a DataError that names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path.name} cannot be read: {one_line(error)}",
            hint="every line needs as many values as the first, each of its column's type",
        ) from error
