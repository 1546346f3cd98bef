"""Forms that integer kernels exist for: a mean over space as GlobalAveragePool, zero padding inside the convolution.

Both rewrites keep every output exactly; without them onnxruntime leaves the int8 chain and comes back.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node


def canonicalise(model: ir.Model) -> list[Decision]:
    """Rewrite what can be, in place. The opset must be 13 or more.

    Returns:
        A decision for each node that was rewritten.
    """
    namer = Namer(model)
    decisions = []
    for node in list(model.graph):
        if node.domain:
            continue
        if node.op_type == "ReduceMean" and _is_spatial_mean(node):
            decisions.append(_pool(model, node, namer))
        elif node.op_type == "Pad":
            decision = _pad_into_conv(model, node)
            if decision is not None:
                decisions.append(decision)
    drop_unused_initializers(model)
    return decisions


def _axes(node: ir.Node) -> list[int] | None:
    """Constant axes of a reduction, from its attribute or input."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or value.const_value is None:
        return None
    return [int(axis) for axis in value.const_value.numpy().reshape(-1)]


def _is_spatial_mean(node: ir.Node) -> bool:
    value = node.inputs[0]
    if value is None or value.shape is None or value.dtype != ir.DataType.FLOAT:
        return False
    rank, axes = len(value.shape), _axes(node)
    return rank >= 3 and axes is not None and sorted(axis % rank for axis in axes) == list(range(2, rank))


def _pool(model: ir.Model, node: ir.Node, namer: Namer) -> Decision:
    graph, source, output = model.graph, node.inputs[0], node.outputs[0]
    assert source is not None and source.shape is not None
    label, keep = str(node.name or output.name), bool(node.attributes.get_int("keepdims", 1))
    result = str(output.name)
    pooled_shape = ir.Shape([*source.shape.dims[:2], *[1] * (len(source.shape) - 2)])
    pool = make_node(
        "GlobalAveragePool",
        [source],
        [result if keep else namer(f"{label}.pooled")],
        name=label,
        shapes=[output.shape if keep else pooled_shape],
    )
    nodes = [pool]
    if not keep:
        axes = add_initializer(graph, namer(f"{label}.axes"), np.arange(2, len(source.shape), dtype=np.int64))
        nodes.append(
            make_node(
                "Squeeze",
                [pool.outputs[0], axes],
                [result],
                name=namer(f"{label}.squeeze"),
                shapes=[output.shape],
            )
        )
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [output], [nodes[-1].outputs[0]])
    return Decision(label, "rewritten", "a mean over all positions is a GlobalAveragePool")


def _pad_into_conv(model: ir.Model, node: ir.Node) -> Decision | None:
    """Move a Pad with zeros into the Conv that alone reads it."""
    output, source = node.outputs[0], node.inputs[0]
    readers = list(output.consumers())
    if source is None or output.is_graph_output() or len(readers) != 1 or len(output.uses()) != 1:
        return None
    conv = readers[0]
    if conv.op_type != "Conv" or conv.inputs[0] is not output or conv.graph is not node.graph:
        return None
    if node.attributes.get_string("mode", "constant") != "constant" or not _adds_zeros(node):
        return None
    pads_value = node.inputs[1] if len(node.inputs) > 1 else None
    if pads_value is None or pads_value.const_value is None or len(node.inputs) > 3:
        return None
    pads = [int(p) for p in pads_value.const_value.numpy().reshape(-1)]
    rank = len(pads) // 2
    if any(pads[axis] or pads[rank + axis] for axis in (0, 1)) or min(pads) < 0 or rank < 3:
        return None
    if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    own = list(conv.attributes.get_ints("pads", [0] * (2 * (rank - 2))))
    moved = [a + b for a, b in zip(own, pads[2:rank] + pads[rank + 2 :], strict=True)]
    conv.attributes["pads"] = ir.AttrInt64s("pads", moved)
    conv.attributes.pop("auto_pad", None)
    conv.replace_input_with(0, source)
    label = str(node.name or output.name)
    model.graph.remove(node, safe=True)
    return Decision(label, "rewritten", f"its zeros are padding of {conv.name or conv.outputs[0].name}")


def _adds_zeros(node: ir.Node) -> bool:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return True
    return value.const_value is not None and not value.const_value.numpy().any()
