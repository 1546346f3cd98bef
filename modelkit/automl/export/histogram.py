"""Histogram gradient boosting of scikit-learn, with native categories and learned sides for missing values."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.export.codes import check_codes, exact_codes
from modelkit.automl.export.ensemble import Trees
from modelkit.automl.export.estimators import CannotExportError
from modelkit.automl.export.graph import Graph


def classifier(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``HistGradientBoostingClassifier`` as probabilities [N, K]."""
    if len(model.classes_) < 2:
        raise CannotExportError("histogram boosting of one class cannot be written")
    score = _raw(model, graph, features)
    if len(model.classes_) == 2:
        return graph.both(graph.node("Sigmoid", score))
    return graph.node("Softmax", score, axis=1)


def regressor(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``HistGradientBoostingRegressor`` as predictions [N, 1]."""
    if model.loss in ("poisson", "gamma"):
        return graph.node("Exp", _raw(model, graph, features))
    if model.loss not in ("squared_error", "absolute_error", "quantile"):
        raise CannotExportError(f"the loss {model.loss} of histogram boosting cannot be written")
    return _raw(model, graph, features)


def _raw(model: Any, graph: Graph, features: str) -> str:
    base = np.asarray(model._baseline_prediction, float).reshape(1, -1)
    trees = Trees(base.shape[1])
    columns, values = _features(model)
    for iteration in model._predictors:
        for target, tree in enumerate(iteration):
            _add(trees, tree, target, columns, values)
    features = exact_codes(graph, features, model.n_features_in_, trees.codes)
    return graph.node("Add", trees.export(graph, features), graph.constant(base))


def _features(model: Any) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Which feature each one inside of the model is, and what the codes of the categorical ones stand for.

    The model puts categories first, and codes their sorted values anew.
    """
    if model._preprocessor is None:
        return np.arange(model.n_features_in_), {}
    is_category = np.asarray(model.is_categorical_, bool)
    columns = np.concatenate([np.flatnonzero(is_category), np.flatnonzero(~is_category)])
    encoder = model._preprocessor.named_transformers_["encoder"]
    values = {}
    for place, found in enumerate(encoder.categories_):
        if np.asarray(found).dtype.kind not in "iuf":
            raise CannotExportError("histogram boosting takes categories as numbers here, not as text")
        values[place] = np.asarray(found, float)[~np.isnan(np.asarray(found, float))]
        check_codes(values[place])
    return columns, values


def _add(trees: Trees, tree: Any, target: int, columns: np.ndarray, values: dict[int, np.ndarray]) -> None:
    nodes = tree.nodes
    leaf = nodes["is_leaf"].astype(bool)
    inner = ~leaf
    place = np.where(leaf, -np.cumsum(leaf), np.cumsum(inner) - 1)
    left, right = place[nodes["left"][inner]], place[nodes["right"][inner]]
    feature = nodes["feature_idx"][inner].astype(int)
    missing_left = nodes["missing_go_to_left"][inner].astype(bool)
    categorical = nodes["is_categorical"][inner].astype(bool)
    sets = {}
    for node in np.flatnonzero(categorical):
        words = tree.raw_left_cat_bitsets[nodes["bitset_idx"][inner][node]]
        bits = ((words[:, None].astype(np.int64) >> np.arange(32)) & 1).reshape(-1).astype(bool)
        known = values[feature[node]]
        goes_left = bits[: len(known)]
        if missing_left[node]:  # what is missing or unknown goes left: ask for what goes right instead
            left[node], right[node] = right[node], left[node]
            goes_left = ~goes_left
        sets[int(node)] = known[goes_left]
    trees.add(
        left,
        right,
        columns[feature],
        np.where(categorical, 0.0, nodes["num_threshold"][inner]),
        missing_left & ~categorical,
        nodes["value"][leaf],
        target,
        sets,
    )
