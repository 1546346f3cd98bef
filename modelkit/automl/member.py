"""A fitted model of one family with its features: predicts in numpy, and writes itself as nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelkit.automl.export.estimators import export
from modelkit.automl.export.graph import Graph
from modelkit.automl.families.family import Encoder, Fit, Params
from modelkit.automl.families.known import FAMILIES
from modelkit.automl.problem import Problem


@dataclass(frozen=True)
class Member:
    """A fitted model.

    Attributes:
        family: Name of its family.
        params: Its hyper-parameters.
        encoder: Makes its features.
        estimator: What was fitted on them.
        seen: Numbers of the classes among its training rows; empty for regression.
        width: Columns of a prediction.
        shift: Mean of the target, that predictions are shifted by; 0 for classes.
        scale: Standard deviation of the target.
        smooth: Share of the probability that all classes get alike.
        rounds: Rounds that it took, where it has any.
    """

    family: str
    params: Params
    encoder: Encoder
    estimator: Any
    seen: tuple[int, ...]
    width: int
    shift: float = 0.0
    scale: float = 1.0
    smooth: float = 0.0
    rounds: int | None = None

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities [N, K], or predictions [N, 1]."""
        x = self.encoder.transform(columns)
        if not self.seen:
            return np.reshape(self.estimator.predict(x), (-1, 1)) * self.scale + self.shift
        found = np.asarray(self.estimator.predict_proba(x), float)
        result = np.zeros((len(x), self.width))
        result[:, self.seen] = found
        return (1 - self.smooth) * result + self.smooth / self.width if self.smooth else result

    def export(self, graph: Graph, inputs: Mapping[str, str]) -> str:
        """The nodes of ``predict``."""
        made = export(self.estimator, graph, self.encoder.export(graph, inputs))
        if not self.seen:
            return graph.affine(made, self.scale, self.shift)
        if len(self.seen) < self.width:
            made = graph.node("MatMul", made, graph.constant(np.eye(self.width)[list(self.seen)]))
        return graph.affine(made, 1 - self.smooth, self.smooth / self.width) if self.smooth else made


def fit_member(family: str, params: Params, problem: Problem, rounds: int | None = None) -> Member:
    """Fit a model of a family, its features included, on all rows of a problem."""
    known = FAMILIES[family]
    encoder = known.encoder(params).fit(problem.frame)
    x = encoder.transform(problem.frame.columns())
    y, shift, scale = problem.y, 0.0, 1.0
    seen: tuple[int, ...] = ()
    if problem.is_classes:
        seen_array, y = np.unique(problem.y, return_inverse=True)
        seen = tuple(int(number) for number in seen_array)
        if len(seen) < 2 and family != "constant":
            return fit_member("constant", {}, problem)
    else:
        shift, scale = float(np.average(y, weights=problem.weight)), float(y.std()) or 1.0
        y = (y - shift) / scale
    job = Fit(x, y, problem.weight, params, len(seen), problem.seed, encoder.categorical, rounds)
    estimator, took = known.fit(job)
    smooth = min(0.01, 1.0 / len(x)) if known.has_zeros and seen else 0.0
    return Member(family, params, encoder, estimator, seen, problem.width, shift, scale, smooth, took)
