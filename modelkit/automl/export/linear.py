"""Linear models and constants: a matrix product, and a sigmoid or softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.export.estimators import CannotExportError
from modelkit.automl.export.graph import Graph


def logistic(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``LogisticRegression`` (lbfgs, multinomial from three classes on) as probabilities [N, K]."""
    score = graph.dense(features, model.coef_.T, model.intercept_)
    if len(model.classes_) == 2:
        return graph.both(graph.node("Sigmoid", score))
    return graph.node("Softmax", score, axis=1)


def ridge(model: Any, graph: Graph, features: str) -> str:
    """A fitted linear regression of one target (``Ridge``, ``ElasticNet``, ...) as predictions [N, 1]."""
    if np.size(model.intercept_) != 1 or np.size(model.coef_) != model.n_features_in_:
        raise CannotExportError("a linear model of several targets cannot be written")
    return graph.dense(features, np.reshape(model.coef_, (-1, 1)), np.reshape(model.intercept_, (1,)))


def constant_classes(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``DummyClassifier(strategy="prior")`` as probabilities [N, K]."""
    if model.strategy != "prior" or model.n_outputs_ != 1:
        raise CannotExportError(f"constants of the strategy {model.strategy} cannot be written")
    return graph.node(
        "Add", _nothing(graph, features), graph.constant(np.reshape(model.class_prior_, (1, -1)), float)
    )


def constant_value(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``DummyRegressor`` of one target as predictions [N, 1]."""
    if model.n_outputs_ != 1:
        raise CannotExportError("constants of several targets cannot be written")
    return graph.node("Add", _nothing(graph, features), graph.constant(np.reshape(model.constant_, (1, 1)), float))


def _nothing(graph: Graph, features: str) -> str:
    """A zero for each row, whatever the features hold."""
    rows = graph.node("Shape", features, start=0, end=1)
    one = graph.constant([1], np.int64)
    return graph.node("Expand", graph.constant([[0.0]]), graph.node("Concat", rows, one, axis=0))
