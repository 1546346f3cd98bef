"""The thresholds that a tree ensemble itself splits at, by column."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_OLD = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")


def teacher_splits(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Thresholds of all tree ensembles of a model that look at its input as it came in.

    Args:
        path: The ONNX file.
        names: The columns of its one matrix, in order.

    Returns:
        Ascending thresholds of each column, each as often as it is used; empty for other models.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph = onnx.load(str(path), load_external_data=False).graph
    came = {value.name for value in graph.input}
    for node in graph.node:  # a cast of the input is the input
        if node.op_type in ("Cast", "Identity") and node.input and node.input[0] in came:
            came |= set(node.output)
    found: dict[str, list[float]] = {}
    for node in graph.node:
        if node.domain != "ai.onnx.ml" or not node.input or node.input[0] not in came:
            continue
        attributes = {each.name: each for each in node.attribute}
        if node.op_type in _OLD:
            modes = [mode.decode() for mode in helper.get_attribute_value(attributes["nodes_modes"])]
            wanted = [mode != "LEAF" for mode in modes]
            if "nodes_values" in attributes:
                values = np.array(helper.get_attribute_value(attributes["nodes_values"]), np.float64)
            else:
                values = numpy_helper.to_array(attributes["nodes_values_as_tensor"].t).astype(np.float64)
        elif node.op_type == "TreeEnsemble":
            values = numpy_helper.to_array(attributes["nodes_splits"].t).astype(np.float64)
            wanted = [True] * len(values)
        else:
            continue
        features = helper.get_attribute_value(attributes["nodes_featureids"])
        for feature, value, split in zip(features, values, wanted, strict=True):
            if split and feature < len(names) and np.isfinite(value):
                found.setdefault(names[feature], []).append(float(value))
    return {name: np.sort(np.array(values)) for name, values in found.items()}
