"""The ONNX file of a blend: one named input for each column, `label` and `probabilities`, or `prediction`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from modelkit.automl.blend import Blend
from modelkit.automl.export.graph import Graph
from modelkit.automl.export.single import finish
from modelkit.automl.problem import Problem

if TYPE_CHECKING:
    import onnx

METADATA = "modelkit.automl"
OUTPUTS = ("label", "probabilities", "prediction")
SCHEMA = "modelkit.automl.model/1"


def to_onnx(blend: Blend, problem: Problem) -> onnx.ModelProto:
    """Write a blend.

    Inputs are vectors [N]: text as string ("" is missing), everything else as double (NaN is missing; dates as days
    and times as seconds since 1970, booleans as 0 and 1). Outputs: ``label`` [N] and ``probabilities`` [N, K],
    double, in the order of the classes that the metadata lists; or ``prediction`` [N], double.

    Args:
        blend: The fitted model.
        problem: What it was fitted on; its columns become the inputs.
    """
    from onnx import TensorProto, helper

    columns = problem.frame.fields
    graph = Graph((*columns, *OUTPUTS))
    names = {name: (f"{name}_input" if name in OUTPUTS else name) for name in columns}
    made = blend.export(graph, names)
    inputs = [
        helper.make_tensor_value_info(
            names[name], TensorProto.STRING if field.kind.is_string else TensorProto.DOUBLE, ["N"]
        )
        for name, field in columns.items()
    ]
    outputs = []
    if problem.is_classes:
        graph.node("Gather", graph.constant(problem.classes), blend.export_choice(graph, made), name="label", axis=0)
        graph.node("Identity", made, name="probabilities")
        kind = TensorProto.STRING if problem.classes.dtype == object else TensorProto.INT64
        outputs.append(helper.make_tensor_value_info("label", kind, ["N"]))
        outputs.append(helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, ["N", problem.width]))
    else:
        graph.node("Squeeze", made, graph.constant([1], np.int64), name="prediction")
        outputs.append(helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["N"]))
    return finish(graph, inputs, outputs, {METADATA: json.dumps(_facts(problem, names))})


def _facts(problem: Problem, names: dict[str, str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "task": problem.task.value,
        "target": problem.target,
        "classes": problem.classes.tolist(),
        "columns": [
            {"name": name, "input": names[name], "kind": field.kind.value}
            for name, field in problem.frame.fields.items()
        ],
    }
