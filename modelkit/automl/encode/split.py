"""Features for trees: numbers as they are, missing as NaN; categories as codes or one-hot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelkit.automl.encode.levels import Levels, OneHot
from modelkit.automl.encode.numbers import Numbers, stack_nodes
from modelkit.automl.export.graph import Graph
from modelkit.data.frame import Frame


class Split:
    """Leaves numbers alone and encodes categories.

    Args:
        codes: Whether the model takes categories as codes (NaN for missing and never seen ones); else one-hot.
        most: Levels of a category that are told apart.
        least: A level with fewer rows is rare.
    """

    def __init__(self, codes: bool, most: int = 250, least: int = 2) -> None:
        self._codes, self._most, self._least = codes, most, least
        self.categorical: tuple[int, ...] = ()

    def fit(self, frame: Frame) -> Split:
        """Learn the levels."""
        self._numbers = Numbers(frame)
        width = len(self._numbers.names)
        if self._codes:
            self._levels = [Levels(f, self._most, self._least) for f in frame.fields.values() if f.kind.is_string]
            self.categorical = tuple(range(width, width + len(self._levels)))
        else:
            self._one_hot = OneHot(frame, self._most, self._least)
        return self

    def transform(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Features, float64 [N, F]."""
        x = self._numbers.transform(columns)
        if not self._codes:
            return np.hstack([x, self._one_hot.transform(columns)])
        return np.column_stack([x, *(each.as_doubles(columns[each.name]) for each in self._levels)])

    def export(self, graph: Graph, inputs: Mapping[str, str]) -> str:
        """The same as nodes."""
        parts = [self._numbers.export(graph, inputs)]
        if not self._codes:
            parts.append(self._one_hot.export(graph, inputs))
        elif self._levels:
            codes = [each.export_doubles(graph, inputs[each.name]) for each in self._levels]
            parts.append(stack_nodes(graph, codes))
        return graph.join([part for part in parts if part is not None])
