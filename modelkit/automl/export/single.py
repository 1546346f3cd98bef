"""One estimator alone as a model of its features: for tests, and for checking a member by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelkit.automl.export.estimators import export
from modelkit.automl.export.graph import IR_VERSION, ML, ML_OPSET, OPSET, Graph

if TYPE_CHECKING:
    import onnx


def single(model: Any, features: int) -> onnx.ModelProto:
    """A model with the input ``features`` [N, F] and the output ``result``, both doubles.

    Args:
        model: A fitted estimator.
        features: How many features it has.
    """
    from onnx import TensorProto, helper

    graph = Graph(("features", "result"))
    made = export(model, graph, "features")
    graph.node("Identity", made, name="result")
    return finish(
        graph,
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["N", features])],
        [helper.make_tensor_value_info("result", TensorProto.DOUBLE, ["N", None])],
    )


def finish(graph: Graph, inputs: list[Any], outputs: list[Any], metadata: dict[str, str] | None = None) -> Any:
    """Make the ``onnx.ModelProto`` of a graph.

    Args:
        graph: Its nodes and constants.
        inputs: ValueInfoProto of each input.
        outputs: ValueInfoProto of each output.
        metadata: Texts to keep in the file.
    """
    from onnx import helper

    from modelkit.version import VERSION

    used = {name for node in graph.nodes for name in node.input}
    constants = [tensor for name, tensor in graph.constants.items() if name in used]
    made = helper.make_graph(graph.nodes, "modelkit", inputs, outputs, constants)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="modelkit",
        producer_version=VERSION,
    )
    helper.set_model_props(model, metadata or {})
    return model
