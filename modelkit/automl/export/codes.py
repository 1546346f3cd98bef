"""Codes of categories as TreeEnsemble can test them: whole numbers from 0 on, NaN for everything else.

onnxruntime tests membership in bit sets where it can: there it cuts fractions off, and at times takes numbers below 0
or beyond 32 bits for members. So what is no code becomes NaN, which is in no set.
"""

from __future__ import annotations

import numpy as np

from modelkit.automl.export.estimators import CannotExportError
from modelkit.automl.export.graph import Graph

_MOST = 2**31 - 2


def check_codes(values: np.ndarray) -> None:
    """Refuse categories that no set of TreeEnsemble can hold.

    Args:
        values: Codes of categories.

    Raises:
        CannotExportError: One is no whole number from 0 on, or is beyond 32 bits.
    """
    if not ((values >= 0) & (values <= _MOST) & (values == np.floor(values))).all():
        raise CannotExportError("categories must be coded as whole numbers from 0 on")


def exact_codes(graph: Graph, features: str, width: int, most: dict[int, int]) -> str:
    """Features [N, F] in which values that are no code are NaN.

    Args:
        graph: Where the nodes go.
        features: Name of a double [N, F].
        width: F.
        most: Feature of codes -> the largest code in a set.
    """
    if not most:
        return features
    is_code = graph.node("Equal", features, _clipped(graph, features, max(most.values())))
    good = graph.node("Or", graph.constant(~_mask(width, most)), is_code)
    return graph.node("Where", good, features, graph.constant(np.nan))


def truncated_codes(graph: Graph, features: str, width: int, most: dict[int, int]) -> str:
    """Features [N, F] in which codes are cut towards 0, as a cast to int does; those below 0 are NaN.

    Args: as for ``exact_codes``.
    """
    if not most:
        return features
    code = _clipped(graph, features, max(most.values()) + 1)
    code = graph.node("Where", graph.node("Greater", features, graph.constant(-1.0)), code, graph.constant(np.nan))
    return graph.node("Where", graph.constant(_mask(width, most)), code, features)


def _clipped(graph: Graph, features: str, most: int) -> str:
    whole = graph.node("Floor", features)
    return graph.node("Clip", whole, graph.constant(0.0), graph.constant(float(most)))


def _mask(width: int, most: dict[int, int]) -> np.ndarray:
    return np.isin(np.arange(width), list(most))[None, :]
