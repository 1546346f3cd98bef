"""Makes weights plain initializers: not inputs with a default, not ``Constant`` nodes."""

from __future__ import annotations

import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.tensors import node_constant


def fix_defaults(model: ir.Model) -> list[Decision]:
    """Remove initializers from the model's inputs, in place: defaults become constants.

    Exporters of ONNX IR 3 had to list each weight as an input, which forbids every optimisation.
    """
    graph = model.graph
    defaults = [value for value in graph.inputs if value.is_initializer()]
    if not defaults:
        return []
    real = [value for value in graph.inputs if not value.is_initializer()]
    graph.inputs.clear()
    graph.inputs.extend(real)
    # Initializers that are no inputs exist since IR 4.
    model.ir_version = max(model.ir_version, 4)
    for value in defaults:
        if value.shape is None and value.const_value is not None:
            value.shape = ir.Shape(value.const_value.shape.numpy())
    return [
        Decision(value.name or "?", "made constant", "it was listed as an input with a default value")
        for value in defaults
    ]


def lift_constants(model: ir.Model) -> list[Decision]:
    """Turn ``Constant`` nodes into initializers of their own graph, in place.

    One that holds text, or that is itself an output of a graph, stays a node.
    """
    decisions: list[Decision] = []
    for graph in model.graphs():
        for node in list(graph):
            tensor = node_constant(node)
            if tensor is None or tensor.dtype == ir.DataType.STRING or node.outputs[0].is_graph_output():
                continue
            output = node.outputs[0]
            name = output.name
            value = ir.Value(
                name=name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
                doc_string=output.doc_string,
                metadata_props=dict(output.metadata_props),
            )
            output.replace_all_uses_with(value)
            graph.remove(node, safe=True)
            tensor.name = name
            graph.register_initializer(value)
            decisions.append(Decision(name or "?", "lifted", "a Constant node became an initializer"))
    # Initializers that are no inputs exist since IR 4.
    if decisions:
        model.ir_version = max(model.ir_version, 4)
    return decisions
