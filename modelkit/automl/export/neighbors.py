"""k nearest neighbours: distances to all rows, the k smallest, and what they vote for."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.export.graph import Graph
from modelkit.automl.export.svm import squared_distances
from modelkit.automl.families.nearest import NEAREST, STEPS


def mean(model: Any, graph: Graph, features: str) -> str:
    """Fitted ``Neighbors`` as probabilities [N, K] or predictions [N, 1]."""
    squared = squared_distances(graph, features, model.rows)
    steps = graph.node("Round", graph.node("Mul", squared, graph.constant(STEPS)))
    count = graph.constant([model.neighbors], np.int64)
    nearest, place = graph.nodes_of("TopK", [steps, count], 2, axis=1, largest=0, sorted=1)
    votes = graph.node("Gather", graph.constant(model.votes), place, axis=0)  # [N, k, K]
    over = graph.constant([1], np.int64)
    if not model.by_distance:
        return graph.node("ReduceMean", votes, over, keepdims=0)
    distance = graph.node("Add", graph.node("Mul", nearest, graph.constant(1 / STEPS)), graph.constant(NEAREST))
    weight = graph.node("Div", graph.constant(1.0), distance)
    share = graph.node("Unsqueeze", graph.node("Div", weight, graph.total(weight)), graph.constant([2], np.int64))
    return graph.node("ReduceSum", graph.node("Mul", votes, share), over, keepdims=0)
