"""The columns that are not text as one matrix of doubles; dates in their parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelkit.automl.encode.dates import PARTS, date_nodes, date_parts
from modelkit.automl.export.graph import Graph
from modelkit.data.frame import Frame, Kind


class Numbers:
    """Puts numbers, booleans and the parts of dates side by side, missing as NaN.

    Args:
        frame: A table with the columns; their values are not looked at.
    """

    def __init__(self, frame: Frame) -> None:
        self._plain = [n for n, f in frame.fields.items() if f.kind in (Kind.number, Kind.boolean)]
        self._dates = {
            n: f.kind is Kind.datetime for n, f in frame.fields.items() if f.kind in (Kind.date, Kind.datetime)
        }
        self.names = list(self._plain)
        for name, is_time in self._dates.items():
            self.names += [f"{name}: {part}" for part in (*PARTS, *(["hour"] if is_time else []))]

    def transform(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Columns as float64 [N, len(names)]."""
        found = [columns[name] for name in self._plain]
        for name, is_time in self._dates.items():
            found += date_parts(columns[name], is_time)
        rows = len(next(iter(columns.values())))
        return np.stack(found, axis=1).astype(float) if found else np.empty((rows, 0))

    def export(self, graph: Graph, inputs: Mapping[str, str]) -> str | None:
        """The same as nodes; None where there are no such columns."""
        found = [inputs[name] for name in self._plain]
        for name, is_time in self._dates.items():
            found += date_nodes(graph, inputs[name], is_time)
        return stack_nodes(graph, found) if found else None


def stack_nodes(graph: Graph, values: list[str]) -> str:
    """Vectors [N] as the columns of a matrix [N, len(values)], in three nodes however many there are."""
    if len(values) == 1:
        return graph.column(values[0])
    long = graph.node("Concat", *values, axis=0)
    wide = graph.node("Reshape", long, graph.constant([len(values), -1], np.int64))
    return graph.node("Transpose", wide, perm=[1, 0])
