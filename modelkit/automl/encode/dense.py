"""Features for models that compute with distances and products: complete, of comparable size, categories one-hot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelkit.automl.encode.levels import OneHot
from modelkit.automl.encode.numbers import Numbers
from modelkit.automl.export.graph import Graph
from modelkit.data.frame import Frame

_SOFT = 3.0  # what lies beyond this many quartile ranges is pressed together


class Dense:
    """Imputes, scales, one-hot encodes.

    Numbers: missing ones become the median, with a feature that says so where some were missing. Then they are
    standardised; or, with ``squash``, measured in quartile ranges from the median and pressed smoothly into a bounded
    range, x / sqrt(1 + (x/3)^2), so that outliers do not matter (Holzmüller et al., "Better by Default", 2024).

    Args:
        squash: Whether to press outliers in.
        most: Levels of a category that are told apart.
        least: A level with fewer rows is rare.
        one_hot: Scale of the one-hot features; distances between categories are counted with it.
    """

    categorical: tuple[int, ...] = ()

    def __init__(self, squash: bool = False, most: int = 64, least: int = 2, one_hot: float = 1.0) -> None:
        self._squash, self._most, self._least, self._scale = squash, most, least, one_hot

    def fit(self, frame: Frame) -> Dense:
        """Learn medians, scales and levels."""
        self._numbers = Numbers(frame)
        self._levels = OneHot(frame, self._most, self._least)
        x = self._numbers.transform(frame.columns())
        gaps = np.isnan(x)
        self._gaps = np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0))
        self._median = np.array([_median(column) for column in x.T])
        x = np.where(gaps, self._median, x)
        center, spread = x.mean(axis=0), x.std(axis=0)
        if self._squash:
            low, high = np.percentile(x, (25, 75), axis=0) if x.shape[1] else (spread, spread)
            center, spread = self._median, np.where(high > low, (high - low) / 1.349, spread)
        self._center, self._factor = (
            center,
            np.where(spread > 1e-12 * (1 + np.abs(center)), 1 / np.maximum(spread, 1e-300), 0.0),
        )
        return self

    def transform(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Features, float64 [N, F]."""
        x = self._numbers.transform(columns)
        gaps = np.isnan(x)
        z = (np.where(gaps, self._median, x) - self._center) * self._factor
        if self._squash:
            z = z / np.sqrt(1 + (z / _SOFT) ** 2)
        return np.hstack([z, gaps[:, self._gaps].astype(float), self._levels.transform(columns) * self._scale])

    def export(self, graph: Graph, inputs: Mapping[str, str]) -> str:
        """The same as nodes."""
        parts = []
        x = self._numbers.export(graph, inputs)
        if x is not None:
            gaps = graph.node("IsNaN", x)
            z = graph.node("Where", gaps, graph.constant(self._median), x)
            z = graph.node("Mul", graph.node("Sub", z, graph.constant(self._center)), graph.constant(self._factor))
            if self._squash:
                bent = graph.node("Div", z, graph.constant(_SOFT))
                bent = graph.node("Add", graph.constant(1.0), graph.node("Mul", bent, bent))
                z = graph.node("Div", z, graph.node("Sqrt", bent))
            parts.append(z)
            if len(self._gaps):
                parts.append(graph.cast(graph.columns(gaps, self._gaps), float))
        levels = self._levels.export(graph, inputs)
        if levels is not None:
            scaled = levels if self._scale == 1 else graph.node("Mul", levels, graph.constant(self._scale))
            parts.append(scaled)
        return graph.join(parts)


def _median(column: np.ndarray) -> float:
    there = column[~np.isnan(column)]
    return float(np.median(there)) if len(there) else 0.0
