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
    for machine in machines:
        if type(machine).__name__ != "SVC":
            raise CannotExportError(f"{type(machine).__name__} within CalibratedClassifierCV cannot be written")
        if len(machine.classes_) != 2:
            raise CannotExportError("of three and more classes, there must be one SVC for each (OneVsRestClassifier)")
    centre = machines[0].support_vectors_.mean(axis=0)
    columns = [_decision(machine, graph, features, centre) for machine in machines]
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
    return _decision(model, graph, features, model.support_vectors_.mean(axis=0))


def _decision(machine: Any, graph: Graph, features: str, centre: np.ndarray) -> str:
    """The decision function of a machine of two classes, or of regression, [N, 1].

    Distances are taken from features less a centre, so that an offset does not cost their digits.
    """
    if machine.kernel != "rbf":
        raise CannotExportError(f"the kernel {machine.kernel} cannot be written")
    vectors, weights = machine.support_vectors_, machine.dual_coef_
    moved = graph.node("Sub", features, graph.constant(centre, float))
    squared = squared_distances(graph, moved, vectors - centre)
    kernel = graph.node("Exp", graph.node("Mul", squared, graph.constant(-machine._gamma)))
    return graph.dense(kernel, np.reshape(weights, (-1, 1)), np.reshape(machine.intercept_, (1,)))


def squared_distances(graph: Graph, features: str, rows: np.ndarray) -> str:
    """Squared distances [N, M] to the rows of a matrix [M, F]: |x|^2 - 2 x.r + |r|^2, at least 0."""
    own = graph.total(graph.node("Mul", features, features))
    cross = graph.node("MatMul", features, graph.constant(-2 * rows.T, float))
    whole = graph.node("Add", graph.node("Add", own, cross), graph.constant((rows**2).sum(axis=1), float))
    return graph.node("Max", whole, graph.constant(0.0))
