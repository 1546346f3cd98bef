"""Forests of scikit-learn: random forests and extremely randomised trees.

scikit-learn compares features as float32 with thresholds in float64, so features are rounded to float32 first.
Of three and more classes, each tree gives the number of its leaf, and a table says what the leaf means: so a tree is
written once, not once for each class. As in scikit-learn, sums are divided at the end: votes are whole numbers then,
and classes with equally many of them stay equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.export.ensemble import Trees
from modelkit.automl.export.estimators import CannotExportError
from modelkit.automl.export.graph import Graph


def forest_classifier(model: Any, graph: Graph, features: str) -> str:
    """A fitted random forest or extra trees as probabilities [N, K]."""
    x = _single(model, graph, features)
    count = graph.constant(float(len(model.estimators_)))
    if len(model.classes_) == 2:
        trees = Trees(1)
        for each in model.estimators_:
            _add(trees, each.tree_, _shares(each.tree_)[:, 1], 0)
        return graph.both(graph.node("Div", trees.export(graph, x), count))
    trees = Trees(len(model.estimators_))
    tables = []
    for number, each in enumerate(model.estimators_):
        leaves = _shares(each.tree_)[_is_leaf(each.tree_)]
        leaves = np.repeat(leaves, 2, axis=0) if len(leaves) == 1 else leaves
        start = trees.leaves
        _add(trees, each.tree_, None, number, start=start)
        tables.append(leaves)
    numbers = graph.cast(trees.export(graph, x), np.int64)
    votes = graph.node("Gather", graph.constant(np.concatenate(tables)), numbers, axis=0)  # [N, trees, K]
    return graph.node("Div", graph.node("ReduceSum", votes, graph.constant([1], np.int64), keepdims=0), count)


def forest_regressor(model: Any, graph: Graph, features: str) -> str:
    """A fitted random forest or extra trees of one target as predictions [N, 1]."""
    trees = Trees(1)
    for each in model.estimators_:
        _add(trees, each.tree_, each.tree_.value[:, 0, 0], 0)
    sums = trees.export(graph, _single(model, graph, features))
    return graph.node("Div", sums, graph.constant(float(len(model.estimators_))))


def _single(model: Any, graph: Graph, features: str) -> str:
    """Features as float32, in doubles again."""
    if model.n_outputs_ != 1:
        raise CannotExportError("forests for several targets at once cannot be written")
    return graph.cast(graph.cast(features, np.float32), float)


def _is_leaf(tree: Any) -> np.ndarray:
    return np.asarray(tree.children_left == -1)


def _shares(tree: Any) -> np.ndarray:
    """Shares of the classes in each node [nodes, K]."""
    values = tree.value[:, 0, :]
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _add(trees: Trees, tree: Any, values: np.ndarray | None, target: int, start: int = 0) -> None:
    """Add a tree of scikit-learn; without values, its leaves are numbered from ``start``."""
    leaf = _is_leaf(tree)
    inner = ~leaf
    place = np.where(leaf, -np.cumsum(leaf), np.cumsum(inner) - 1)
    count = int(leaf.sum())
    weights = start + np.arange(count) if values is None else values[leaf]
    trees.add(
        place[tree.children_left[inner]],
        place[tree.children_right[inner]],
        tree.feature[inner],
        tree.threshold[inner],
        tree.missing_go_to_left[inner].astype(bool),
        weights,
        target,
    )
