"""Neural networks of scikit-learn: products and activations."""

from __future__ import annotations

from typing import Any

from modelkit.automl.export.estimators import CannotExportError
from modelkit.automl.export.graph import Graph

_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": ""}


def classifier(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``MLPClassifier`` as probabilities [N, K]."""
    score = _layers(model, graph, features)
    if model.n_outputs_ != (1 if len(model.classes_) == 2 else len(model.classes_)):
        raise CannotExportError("a network for several labels at once cannot be written")
    if model.out_activation_ == "softmax":
        return graph.node("Softmax", score, axis=1)
    if model.out_activation_ != "logistic" or model.n_outputs_ != 1:
        raise CannotExportError("a network for several labels at once cannot be written")
    return graph.both(graph.node("Sigmoid", score))


def regressor(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``MLPRegressor`` of one target as predictions [N, 1]."""
    if model.n_outputs_ != 1:
        raise CannotExportError("a network for several targets at once cannot be written")
    value = _layers(model, graph, features)
    if model.out_activation_ == "exp":  # of the loss "poisson"
        return graph.node("Exp", value)
    if model.out_activation_ != "identity":
        raise CannotExportError(f"the activation {model.out_activation_} of an output cannot be written")
    return value


def _layers(model: Any, graph: Graph, value: str) -> str:
    for place, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        value = graph.dense(value, weight, bias)
        activation = _ACTIVATIONS[model.activation]
        if place < len(model.coefs_) - 1 and activation:
            value = graph.node(activation, value)
    return value
