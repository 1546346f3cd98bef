"""Many decision trees as one TreeEnsemble node (ai.onnx.ml 5), in doubles.

A split is "feature <= threshold goes left", with a side for missing values; or, of a category, "code is in a set". A
leaf adds its weight to one target.
"""

from __future__ import annotations

import numpy as np

from modelkit.automl.export.graph import ML, Graph

_LEQ, _MEMBER = 0, 6


class Trees:
    """Collects trees.

    Args:
        targets: How many sums the leaves add to.
    """

    def __init__(self, targets: int) -> None:
        self._targets = targets
        self._parts: dict[str, list[np.ndarray]] = {}
        self._sets: list[np.ndarray] = []
        self._roots: list[int] = []
        self._nodes = self._leaves = 0
        self._most_code: dict[int, int] = {}

    @property
    def leaves(self) -> int:
        """How many leaves there are so far."""
        return self._leaves

    @property
    def codes(self) -> dict[int, int]:
        """Features that are asked for sets -> the largest code in one."""
        return dict(self._most_code)

    def add(
        self,
        left: np.ndarray,
        right: np.ndarray,
        feature: np.ndarray,
        threshold: np.ndarray,
        missing_left: np.ndarray,
        weights: np.ndarray,
        target: int,
        sets: dict[int, np.ndarray] | None = None,
    ) -> None:
        """Add a tree.

        Args:
            left: For each inner node the node (0 or more), or the leaf (-1 - its number), where it goes on to if
                the feature is at most the threshold, or in the set.
            right: Where it goes on to otherwise.
            feature: Feature of each inner node.
            threshold: Threshold of each inner node, float64.
            missing_left: Whether a missing value goes left.
            weights: Weight of each leaf, float64.
            target: What its leaves add to.
            sets: Inner node -> the codes of which one must be there to go left: whole numbers from 0 on. Their
                features must hold nothing but such numbers and NaN (see ``codes.py``).
        """
        if not len(left):  # a tree that is one leaf
            weights = np.repeat(weights[:1], 2)
            left, right, feature = np.array([-1]), np.array([-2]), np.array([0])
            threshold, missing_left = np.array([0.0]), np.array([True])
        modes = np.full(len(left), _LEQ, np.uint8)
        threshold = threshold.astype(float)
        for node, codes in sorted((sets or {}).items()):
            if not len(codes):  # onnxruntime takes no empty set; no code is below 0
                threshold[node] = -1.0
                continue
            modes[node] = _MEMBER
            self._sets.append(codes)
            column = int(feature[node])
            self._most_code[column] = max(self._most_code.get(column, 0), int(codes.max()))
        self._roots.append(self._nodes)
        for name, children in (("true", left), ("false", right)):
            is_leaf = children < 0
            self._keep(f"nodes_{name}leafs", is_leaf.astype(np.int64))
            self._keep(f"nodes_{name}nodeids", np.where(is_leaf, self._leaves - 1 - children, self._nodes + children))
        self._keep("nodes_featureids", feature)
        self._keep("nodes_splits", threshold)
        self._keep("nodes_modes", modes)
        self._keep("nodes_missing_value_tracks_true", missing_left.astype(np.int64))
        self._keep("leaf_weights", weights.astype(float))
        self._keep("leaf_targetids", np.full(len(weights), target))
        self._nodes += len(left)
        self._leaves += len(weights)

    def _keep(self, name: str, values: np.ndarray) -> None:
        self._parts.setdefault(name, []).append(values)

    def export(self, graph: Graph, features: str) -> str:
        """Write the node; the sums are double [N, targets]."""
        from onnx import numpy_helper

        found = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        tensors = ("nodes_splits", "nodes_modes", "leaf_weights")
        attributes = {
            name: numpy_helper.from_array(values, name) if name in tensors else values.astype(np.int64).tolist()
            for name, values in found.items()
        }
        if self._sets:
            # Sets follow each other in the order of their nodes, each ended by NaN.
            flat = np.concatenate([np.append(values.astype(float), np.nan) for values in self._sets])
            attributes["membership_values"] = numpy_helper.from_array(flat, "membership_values")
        return graph.node(
            "TreeEnsemble",
            features,
            domain=ML,
            n_targets=self._targets,
            aggregate_function=1,
            post_transform=0,
            tree_roots=self._roots,
            **attributes,
        )
