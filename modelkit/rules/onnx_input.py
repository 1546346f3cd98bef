"""The input side of the ONNX file: where each value lies among an axis's cells, and what linear conditions say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from modelkit.rules.axes import Axis, CategoryAxis, Key, LinearAxis, NumberAxis
from modelkit.rules.conditions import And, Condition, Linear, Not, Operator, Or
from modelkit.rules.model import RuleSet
from modelkit.rules.onnx_nodes import Nodes

_ML = "ai.onnx.ml"
_LESS = 1  # BRANCH_LT
_OPS = {
    Operator.EQ: "Equal",
    Operator.LT: "Less",
    Operator.LE: "LessOrEqual",
    Operator.GT: "Greater",
    Operator.GE: "GreaterOrEqual",
}


class Inputs:
    """Makes what rules look at out of the graph's inputs.

    Args:
        rules: The rule set.
        axes: Exact axes of its columns.
        nodes: The graph.

    Attributes:
        numbers: Names of the columns of doubles, in the order of the columns of ``matrix``.
        matrix: double [N, number of them]; empty where there are none.
    """

    def __init__(self, rules: RuleSet, axes: Mapping[Key, Axis], nodes: Nodes) -> None:
        self._rules, self._axes, self._nodes = rules, axes, nodes
        self.numbers = [column.name for column in rules.columns if not column.type.is_text]
        self.matrix = nodes.join([nodes.column(name) for name in self.numbers]) if self.numbers else ""
        self._cells: dict[str, str] = {}
        self._holds: dict[Condition, str] = {}
        self._nan = ""

    def count(self) -> str:
        """The number of rows, int64 [1]."""
        return self._nodes.add("Shape", self._rules.columns[0].name)

    def locate(self, names: Sequence[str]) -> None:
        """Prepare the cells of these columns: all number columns by one ensemble of trees."""
        nodes, trees = self._nodes, []
        for name in names:
            axis = self._axes[name]
            if isinstance(axis, CategoryAxis):
                keys = ["", *axis.column.values]
                self._cells[name] = nodes.add(
                    "LabelEncoder",
                    name,
                    domain=_ML,
                    keys_strings=keys,
                    values_int64s=list(range(len(keys))),
                    default_int64=len(keys),
                )
            elif isinstance(axis, NumberAxis) and axis.cuts:
                trees.append(name)
            else:
                there = nodes.add("Not", nodes.add("IsNaN", name))
                self._cells[name] = nodes.cast(there, "INT64")
        if trees:
            self._search(trees)

    def _search(self, names: list[str]) -> None:
        """One tree for each column: a binary search among its cuts; its only leaf's weight is the cell."""
        nodes = self._nodes
        values = nodes.columns(self.matrix, [self.numbers.index(name) for name in names])
        axes = [self._axes[name] for name in names]
        found = nodes.add(
            "TreeEnsemble", values, domain=_ML, **_ensemble([a for a in axes if isinstance(a, NumberAxis)])
        )
        zero = nodes.constant(np.float64(0.0))
        cells = nodes.cast(nodes.add("Where", nodes.add("IsNaN", values), zero, found), "INT64")
        parts = [cells] if len(names) == 1 else self._split(cells, len(names))
        for name, part in zip(names, parts, strict=True):
            self._cells[name] = nodes.flat(part)

    def _split(self, value: str, count: int) -> list[str]:
        from onnx import helper

        outputs = [f"{value}_{i}" for i in range(count)]
        self._nodes.nodes.append(
            helper.make_node("Split", [value], outputs, name=f"Split_{value}", axis=1, num_outputs=count)
        )
        return outputs

    def cells(self, name: str) -> str:
        """The cell of each row's value in a column: int64 [N]."""
        return self._cells[name]

    def holds(self, condition: Condition) -> str:
        """Where a condition holds, by operators of logic: bool [N]."""
        if condition not in self._holds:
            self._holds[condition] = self._make(condition)
        return self._holds[condition]

    def _make(self, condition: Condition) -> str:
        nodes = self._nodes
        if isinstance(condition, Not):
            return nodes.add("Not", self.holds(condition.term))
        if isinstance(condition, And | Or):
            if not condition.terms:
                fill = nodes.constant(np.array([isinstance(condition, And)]))
                return nodes.add("Expand", fill, self.count())
            op, parts = (
                ("And" if isinstance(condition, And) else "Or"),
                [self.holds(term) for term in condition.terms],
            )
            while len(parts) > 1:  # a balanced tree: as deep as the logarithm
                parts = [
                    nodes.add(op, *parts[i : i + 2]) if i + 1 < len(parts) else parts[i]
                    for i in range(0, len(parts), 2)
                ]
            return parts[0]
        if isinstance(condition, Linear):
            self.linear([condition])
            return self._holds[condition]
        axis = self._axes[condition.column]
        assert not isinstance(axis, LinearAxis)
        cells = axis.cells(condition)
        marks = np.array([bool(cells >> i & 1) for i in range(axis.size)])
        return nodes.pick(marks, self._cells[condition.column])

    def linear(self, conditions: Sequence[Linear]) -> None:
        """Prepare linear conditions, those alike in one go."""

        def kind(condition: Linear) -> tuple[int, str]:
            return len(condition.terms), str(condition.op)

        wanted = sorted({c: None for c in conditions if c not in self._holds}, key=kind)
        for (_, _), group in groupby(wanted, kind):
            alike = list(group)
            marks = self._alike(alike)
            parts = [marks] if len(alike) == 1 else self._split(marks, len(alike))
            for condition, part in zip(alike, parts, strict=True):
                self._holds[condition] = self._nodes.flat(part)

    def _alike(self, conditions: list[Linear]) -> str:
        """Where conditions with the same operator and number of terms hold: bool [N, K]."""
        nodes = self._nodes
        total = ""
        missing = ""
        for k in range(len(conditions[0].terms)):
            columns = [self.numbers.index(condition.terms[k][0]) for condition in conditions]
            values = nodes.columns(self.matrix, columns)
            factors = nodes.constant(np.array([condition.terms[k][1] for condition in conditions], np.float64))
            product = nodes.add("Mul", values, factors)
            total = nodes.add("Add", total, product) if total else product
            if conditions[0].op is Operator.NE:
                nan = nodes.add("IsNaN", values)
                missing = nodes.add("Or", missing, nan) if missing else nan
        bounds = nodes.constant(np.array([condition.bound for condition in conditions], np.float64))
        op = conditions[0].op
        if op is Operator.NE:  # true of NaN, so missing values have to be told apart
            other = nodes.add("Not", nodes.add("Equal", total, bounds))
            return nodes.add("And", other, nodes.add("Not", missing))
        return nodes.add(_OPS[op], total, bounds)


def _ensemble(axes: list[NumberAxis]) -> dict[str, Any]:
    """Attributes of a TreeEnsemble with a binary search tree for each axis."""
    from onnx import numpy_helper

    found: dict[str, list[int]] = {name: [] for name in ("feature", "true", "true_leaf", "false", "false_leaf")}
    splits: list[float] = []
    weights: list[float] = []
    targets: list[int] = []
    roots: list[int] = []
    for feature, axis in enumerate(axes):
        roots.append(len(splits))
        # Spans of cells [first, last] still to be told apart, with the node and side that lead to them.
        stack: list[tuple[int, int, int, str]] = [(1, len(axis.cuts) + 1, -1, "")]
        while stack:
            first, last, parent, side = stack.pop()
            if first == last:
                here, is_leaf = len(weights), 1
                weights.append(float(first))
                targets.append(feature)
            else:
                here, is_leaf = len(splits), 0
                middle = (first + last) // 2  # cells up to it lie below cuts[middle - 1]
                splits.append(axis.cuts[middle - 1])
                found["feature"].append(feature)
                for name in ("true", "false"):
                    found[name].append(0)
                    found[f"{name}_leaf"].append(0)
                stack += [(middle + 1, last, here, "false"), (first, middle, here, "true")]
            if side:
                found[side][parent], found[f"{side}_leaf"][parent] = here, is_leaf
    return {
        "aggregate_function": 1,
        "post_transform": 0,
        "n_targets": len(axes),
        "tree_roots": roots,
        "nodes_featureids": found["feature"],
        "nodes_splits": numpy_helper.from_array(np.array(splits, np.float64), "nodes_splits"),
        "nodes_modes": numpy_helper.from_array(np.full(len(splits), _LESS, np.uint8), "nodes_modes"),
        "nodes_truenodeids": found["true"],
        "nodes_trueleafs": found["true_leaf"],
        "nodes_falsenodeids": found["false"],
        "nodes_falseleafs": found["false_leaf"],
        "nodes_missing_value_tracks_true": [0] * len(splits),
        "leaf_targetids": targets,
        "leaf_weights": numpy_helper.from_array(np.array(weights, np.float64), "leaf_weights"),
    }
