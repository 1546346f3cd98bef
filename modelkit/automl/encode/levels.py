"""Categories as whole numbers: frequent levels by frequency, rare ones together, what was never seen apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelkit.automl.encode.numbers import stack_nodes
from modelkit.automl.export.graph import ML, Graph
from modelkit.data.frame import Field, Frame


class Levels:
    """The levels of one column.

    Codes count from 0, the most frequent level first. Rare levels and levels that were never seen share the code
    after them if rare ones were seen; else what was never seen is -1. Missing has a code of its own if it was seen.

    Args:
        field: The column.
        most: At most this many levels are told apart.
        least: A level with fewer rows than this is rare.
    """

    def __init__(self, field: Field, most: int, least: int) -> None:
        self.name = field.name
        values, counts = np.unique(field.values[~field.missing].astype(str), return_counts=True)
        order = np.lexsort((values, -counts))
        kept = [index for index in order[:most] if counts[index] >= least]
        self.kept = [str(values[index]) for index in kept]
        self.has_rare = len(kept) < len(values)
        self.has_missing = bool(field.missing.any())
        self.count = len(self.kept) + self.has_rare + self.has_missing
        self._codes = {text: code for code, text in enumerate(self.kept)}
        self.default = len(self.kept) if self.has_rare else -1
        self._missing = self.count - 1 if self.has_missing else self.default

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Codes of texts, int64 [N]."""
        table = {**self._codes, "": self._missing}
        return np.array([table.get(value, self.default) for value in values], np.int64)

    def as_doubles(self, values: np.ndarray) -> np.ndarray:
        """Codes as doubles, NaN for missing and never seen."""
        codes = self.codes(values).astype(float)
        codes[(codes < 0) | (values == "")] = np.nan
        return codes

    def export(self, graph: Graph, value: str) -> str:
        """The nodes of ``codes``."""
        table = {**self._codes, "": self._missing}
        return _look_up(graph, value, table, self.default, np.int64)

    def export_doubles(self, graph: Graph, value: str) -> str:
        """The nodes of ``as_doubles``."""
        table = {**{text: float(code) for text, code in self._codes.items()}, "": np.nan}
        return _look_up(graph, value, table, float(self.default) if self.default >= 0 else np.nan, float)


def _look_up(graph: Graph, value: str, table: Mapping[str, float], default: float, dtype: type) -> str:
    from onnx import numpy_helper

    return graph.node(
        "LabelEncoder",
        value,
        domain=ML,
        keys_tensor=numpy_helper.from_array(np.array([*table, None], object)[:-1]),
        values_tensor=numpy_helper.from_array(np.array(list(table.values()), dtype)),
        default_tensor=numpy_helper.from_array(np.array([default], dtype)),
    )


class OneHot:
    """Every level of every column of categories as a feature that is 0 or 1.

    Args:
        frame: The table to learn the levels from.
        most: At most this many levels of a column are told apart.
        least: A level with fewer rows is rare.
    """

    def __init__(self, frame: Frame, most: int, least: int) -> None:
        self.levels = [Levels(f, most, least) for f in frame.fields.values() if f.kind.is_string]
        owner = [(index, code) for index, each in enumerate(self.levels) for code in range(each.count)]
        self._owner = np.array([index for index, _ in owner], np.int64)
        self._code = np.array([code for _, code in owner], np.int64)

    @property
    def count(self) -> int:
        """How many features."""
        return len(self._owner)

    def transform(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Features, float64 [N, count]."""
        rows = len(next(iter(columns.values())))
        if not self.count:
            return np.empty((rows, 0))
        codes = np.stack([each.codes(columns[each.name]) for each in self.levels], axis=1)
        return (codes[:, self._owner] == self._code).astype(float)

    def export(self, graph: Graph, inputs: Mapping[str, str]) -> str | None:
        """The same as nodes; None where there are no features."""
        if not self.count:
            return None
        codes = stack_nodes(graph, [each.export(graph, inputs[each.name]) for each in self.levels])
        return graph.cast(graph.node("Equal", graph.columns(codes, self._owner), graph.constant(self._code)), float)
