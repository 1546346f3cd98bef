"""Gradient boosting by LightGBM, read from its text format, with native categories and learned sides for NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.export.codes import truncated_codes
from modelkit.automl.export.ensemble import Trees
from modelkit.automl.export.estimators import CannotExportError
from modelkit.automl.export.graph import Graph

_CATEGORICAL, _DEFAULT_LEFT = 1, 2  # bits of decision_type; the two above say what counts as missing
_MISSING_NONE, _MISSING_ZERO = 0, 1
_PLAIN = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
_LOGARITHMS = ("poisson", "gamma", "tweedie")
_ZERO = float(np.float32(1e-35))  # LightGBM takes what is not farther than this from 0 for 0


def classifier(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``LGBMClassifier`` as probabilities [N, K]."""
    objective, score = _score(model, graph, features)
    if objective[0] == "binary":
        sigmoid = next((float(part[8:]) for part in objective if part.startswith("sigmoid:")), 1.0)
        score = score if sigmoid == 1 else graph.node("Mul", score, graph.constant(sigmoid))
        return graph.both(graph.node("Sigmoid", score))
    if objective[0] != "multiclass":
        raise CannotExportError(f"the objective {objective[0]} of LightGBM is not known")
    return graph.node("Softmax", score, axis=1)


def regressor(model: Any, graph: Graph, features: str) -> str:
    """A fitted ``LGBMRegressor`` as predictions [N, 1]."""
    objective, score = _score(model, graph, features)
    if objective[0] in _LOGARITHMS:
        return graph.node("Exp", score)
    if objective[0] not in _PLAIN:
        raise CannotExportError(f"the objective {objective[0]} of LightGBM is not known")
    return graph.node("Mul", score, graph.node("Abs", score)) if "sqrt" in objective else score


def _parsed(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The head of a model's text, and its trees."""
    blocks = text.split("end of trees")[0].split("\nTree=")
    head, *trees = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
    return head, trees


def _score(model: Any, graph: Graph, features: str) -> tuple[list[str], str]:
    """The objective and its options, and the sums of the trees [N, K]; of a forest, their means."""
    text = model.booster_.model_to_string()
    head, trees = _parsed(text)
    objective = head.get("objective", "custom").split()  # not written where it was a function
    if not trees:
        raise CannotExportError("LightGBM made no trees")
    targets = int(head["num_tree_per_iteration"])
    found = Trees(targets)
    for number, tree in enumerate(trees):
        _add(found, tree, number % targets)
    sums = found.export(graph, truncated_codes(graph, features, model.n_features_in_, found.codes))
    if "average_output" in text.split("\nTree=")[0].splitlines():
        sums = graph.node("Div", sums, graph.constant(float(len(trees) // targets)))
    return objective, sums


def _numbers(tree: dict[str, str], name: str, dtype: type) -> np.ndarray:
    return np.array(tree.get(name, "").split(), dtype=dtype)


def _add(trees: Trees, tree: dict[str, str], target: int) -> None:
    if tree.get("is_linear", "0") != "0":
        raise CannotExportError("linear trees of LightGBM cannot be written")
    empty = np.empty(0, np.int64)
    leaves = _numbers(tree, "leaf_value", float)
    if len(leaves) < 2:
        trees.add(empty, empty, empty, np.empty(0), empty.astype(bool), leaves, target)
        return
    kinds = _numbers(tree, "decision_type", int)
    threshold = _numbers(tree, "threshold", float)
    categorical = (kinds & _CATEGORICAL) > 0
    missing = (kinds >> 2) & 3
    if (missing[~categorical] == _MISSING_ZERO).any():
        raise CannotExportError("LightGBM's zero_as_missing cannot be written")
    # Where no missing value was seen, NaN counts as 0.
    side = np.where(missing == _MISSING_NONE, threshold >= 0, (kinds & _DEFAULT_LEFT) > 0)
    bounds, bits = _numbers(tree, "cat_boundaries", int), _numbers(tree, "cat_threshold", np.int64)
    sets = {
        int(node): _members(bits[bounds[int(threshold[node])] : bounds[int(threshold[node]) + 1]])
        for node in np.flatnonzero(categorical)
    }
    trees.add(
        _numbers(tree, "left_child", int),
        _numbers(tree, "right_child", int),
        _numbers(tree, "split_feature", int),
        np.where(categorical, 0.0, _beside_zero(threshold)),
        side & ~categorical,
        leaves,
        target,
        sets,
    )


def _beside_zero(threshold: np.ndarray) -> np.ndarray:
    """Thresholds with which values next to 0 go where LightGBM sends 0."""
    below = (threshold >= -_ZERO) & (threshold < 0)
    above = (threshold >= 0) & (threshold <= _ZERO)
    return np.where(below, np.nextafter(-_ZERO, -np.inf), np.where(above, _ZERO, threshold))


def _members(words: np.ndarray) -> np.ndarray:
    """Numbers of the bits that are set in words of 32 bits."""
    bits = (words[:, None] >> np.arange(32)) & 1
    return np.flatnonzero(bits.reshape(-1))
