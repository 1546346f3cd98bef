"""Checks that onnxruntime computes what the Python models do, on all rows and on rows where exporters err."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from modelkit.automl.artifact import OUTPUTS
from modelkit.automl.blend import Blend
from modelkit.automl.export.graph import ML
from modelkit.automl.problem import Problem
from modelkit.runtime import make_session, run

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-6
_PROBES = 3000
_ROWS = 2048


def computed(
    model: bytes, columns: Mapping[str, np.ndarray], is_classes: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """What onnxruntime makes of columns: probabilities or predictions [N, K or 1], and labels."""
    session = make_session(model)
    names = {each.name for each in session.get_inputs()}
    feeds = {key: values for name, values in columns.items() if (key := _input(name)) in names}
    outputs = ["probabilities", "label"] if is_classes else ["prediction"]
    rows = len(next(iter(feeds.values())))
    parts = []
    for at in range(0, rows, _ROWS):
        some = {name: values[at : at + _ROWS] for name, values in feeds.items()}
        parts.append(run(session, some, "the model", outputs))
    found = [np.concatenate([part[place] for part in parts]) for place in range(len(outputs))]
    return (found[0], found[1]) if is_classes else (found[0].reshape(-1, 1), None)


def _input(name: str) -> str:
    return f"{name}_input" if name in OUTPUTS else name


def disagreement(
    model: bytes, blend: Blend, problem: Problem, columns: Mapping[str, np.ndarray]
) -> tuple[float, int]:
    """Largest difference of probabilities (predictions: relative to them or their spread), and of labels how many."""
    wanted = blend.predict(columns)
    got, labels = computed(model, columns, problem.is_classes)
    scale = 1.0 if problem.is_classes else np.maximum(np.abs(wanted), max(float(np.std(problem.y)), 1e-300))
    gap = float(np.max(np.abs(got - wanted) / scale, initial=0.0))
    if not np.isfinite(got).all():
        gap = float("inf")
    wrong = 0
    if labels is not None:
        wrong = int((labels != problem.classes[blend.choose(wanted)]).sum())
    return gap, wrong


def probes(model: onnx.ModelProto, problem: Problem, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows where exporters err: at thresholds of trees and one step beside, without values, with unseen text.

    Args:
        model: A model, for the thresholds in it.
        problem: Rows to start from.
        seed: Seed of the choice of rows.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(problem.rows, size=_PROBES)
    columns = {name: field.values[rows].copy() for name, field in problem.frame.fields.items()}
    numeric = [name for name, field in problem.frame.fields.items() if not field.kind.is_string]
    plain = [n for n in numeric if problem.frame.fields[n].kind.value in ("number", "boolean")]
    thresholds = _thresholds(model)
    for row in range(0, _PROBES // 2, 3):
        usable = [(f, t) for f, t in thresholds[row % 97 :: 97] if f < len(plain)] if thresholds else []
        if not usable:
            continue
        feature, threshold = usable[int(rng.integers(len(usable)))]
        steps = (threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf))
        columns[plain[feature]][row : row + 3] = steps
    for name, values in columns.items():
        gone = rng.random(_PROBES) < 0.15
        gone[: _PROBES // 2] = False
        odd = rng.random(_PROBES) < 0.05
        odd[: _PROBES // 2] = False
        values[gone] = "" if values.dtype == object else np.nan
        if values.dtype == object:
            values[odd] = "never seen before"
        elif problem.frame.fields[name].kind.value in ("number",):
            values[odd] = rng.choice([-1e30, 1e30, 0.0, -1.0], int(odd.sum()))
    return columns


def _thresholds(model: onnx.ModelProto) -> list[tuple[int, float]]:
    """Features and thresholds of all trees in a graph."""
    from onnx import numpy_helper

    found: list[tuple[int, float]] = []
    for node in model.graph.node:
        if node.domain == ML and node.op_type == "TreeEnsemble":
            attributes = {attribute.name: attribute for attribute in node.attribute}
            splits = numpy_helper.to_array(attributes["nodes_splits"].t)
            features = attributes["nodes_featureids"].ints
            step = max(1, len(splits) // 20_000)
            pairs = zip(features[::step], splits[::step], strict=True)
            found += [(int(f), float(t)) for f, t in pairs if np.isfinite(t)]
    return found
