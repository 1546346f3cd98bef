"""Support vector machines with a radial kernel: distances to the support vectors, and Platt's sigmoid."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.export.estimators import CannotExportError
from modelkit.automl.export.graph import Graph


def classifier(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``CalibratedClassifierCV`` (sigmoid, one for all) of SVC, or of one SVC for each class."""
    if len(model.calibrated_classifiers_) != 1 or model.method != "sigmoid":
        raise CannotExportError("only one machine with sigmoids can be written")
    inner = model.calibrated_classifiers_[0]
    machines = getattr(inner.estimator, "estimators_", None) or [inner.estimator]
    if type(machines[0]).__name__ != "SVC":
        raise CannotExportError(f"{type(machines[0]).__name__} within CalibratedClassifierCV cannot be written")
    columns = [_decision(machine, graph, features) for machine in machines]
    slope = np.array([each.a_ for each in inner.calibrators])
    offset = np.array([each.b_ for each in inner.calibrators])
    score = graph.affine(graph.join(columns), -slope, -offset)
    if len(columns) == 1:
        return graph.both(graph.node("Sigmoid", score))
    shares = graph.node("Sigmoid", score)
    total = graph.total(shares)
    even = graph.constant(np.full(len(columns), 1 / len(columns)))
    nothing = graph.node("Equal", total, graph.constant(0.0))
    return graph.node("Where", nothing, even, graph.node("Div", shares, total))


def regressor(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``SVR`` as predictions [N, 1]."""
    return _decision(model, graph, features)


def _decision(machine: Any, graph: Graph, features: str) -> str:
    """The decision function of a machine of two classes, or of regression, [N, 1]."""
    if machine.kernel != "rbf":
        raise CannotExportError(f"the kernel {machine.kernel} cannot be written")
    vectors, weights = machine.support_vectors_, machine.dual_coef_
    squared = squared_distances(graph, features, vectors)
    kernel = graph.node("Exp", graph.node("Mul", squared, graph.constant(-machine._gamma)))
    return graph.dense(kernel, np.reshape(weights, (-1, 1)), np.reshape(machine.intercept_, (1,)))


def squared_distances(graph: Graph, features: str, rows: np.ndarray) -> str:
    """Squared distances [N, M] to the rows of a matrix [M, F]: |x|^2 - 2 x.r + |r|^2, at least 0."""
    own = graph.total(graph.node("Mul", features, features))
    cross = graph.node("MatMul", features, graph.constant(-2 * rows.T, float))
    whole = graph.node("Add", graph.node("Add", own, cross), graph.constant((rows**2).sum(axis=1), float))
    return graph.node("Max", whole, graph.constant(0.0))
