"""Walks over a graph once and lets every op state how the channels of its inputs and outputs hang together."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from modelkit.graph.channels import (
    rules_elementwise,
    rules_moves,
    rules_norms,
    rules_pieces,
    rules_products,
    rules_recurrent,
)
from modelkit.graph.channels.rules_elementwise import describe
from modelkit.graph.channels.sizes import pin_sizes
from modelkit.graph.channels.walk import Walk

Rule = Callable[[Walk, ir.Node], None]

RULES: dict[str, Rule] = {
    **dict.fromkeys(rules_elementwise.NARY, rules_elementwise.nary),
    **dict.fromkeys(rules_elementwise.UNARY - {"PRelu"}, rules_elementwise.unary),
    "Conv": rules_products.conv,
    "ConvTranspose": rules_products.conv_transpose,
    "Gemm": rules_products.gemm,
    "MatMul": rules_products.matmul,
    "Reshape": rules_moves.reshape,
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), rules_moves.flatten_like),
    "Transpose": rules_moves.transpose,
    "Concat": rules_moves.concat,
    "ConstantOfShape": rules_moves.shape_made,
    "Expand": rules_moves.expand,
    "Tile": rules_moves.tile,
    "DepthToSpace": rules_moves.depth_to_space,
    "SpaceToDepth": rules_moves.space_to_depth,
    "Pad": rules_moves.pad,
    "Split": rules_pieces.split,
    "Slice": rules_pieces.slice_,
    "Gather": rules_pieces.gather,
    "Shape": rules_pieces.shape_read,
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), rules_norms.per_channel),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), rules_norms.over_last),
    "GroupNormalization": rules_norms.group_norm,
    **dict.fromkeys(
        (
            *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd"),
            *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
        ),
        rules_norms.reduce,
    ),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "Hardmax", "CumSum", "LpNormalization"),
        rules_norms.along_axis,
    ),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
        rules_norms.spatial,
    ),
    **dict.fromkeys(("Resize", "Upsample"), rules_norms.resize),
    "LRN": rules_norms.across_channels,
    **dict.fromkeys(("GRU", "LSTM", "RNN"), rules_recurrent.recurrent),
}


def analyse(model: ir.Model) -> Walk:
    """State all relations between the channels of a model.

    Sizes that the graph reads off shapes and that never change become constants, in place; what the model
    computes stays the same.
    """
    walk = Walk(model, pin_sizes(model))
    for value in model.graph.inputs:
        walk.layouts[value] = walk.plain(value)
    for node in model.graph:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            _freeze_captured(walk, node)
        elif rule is None:
            rules_products.refuse(walk, node, f"the operator {_operator(node)} is not followed")
        else:
            rule(walk, node)
        present = [value for value in node.inputs if value is not None]
        if present and all(map(walk.is_constant, present)):
            walk.constant.update(node.outputs)
    for value in model.graph.outputs:
        walk.freeze_value(value, f"it reaches the output '{value.name}'")
    return walk


def _operator(node: ir.Node) -> str:
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type


def _freeze_captured(walk: Walk, node: ir.Node) -> None:
    """What a subgraph reads, by input or from outside, stays."""
    reason = f"the subgraph of {describe(node)} reads it"
    rules_products.refuse(walk, node, reason)
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type == ir.AttributeType.GRAPH
            else list(attribute.as_graphs())
            if attribute.type == ir.AttributeType.GRAPHS
            else []
        )
        for graph in graphs:
            for inner in graph.all_nodes():
                for value in inner.inputs:
                    if value is not None and value.graph is walk.model.graph:
                        walk.freeze_value(value, reason)
            for output in graph.outputs:
                if output.graph is walk.model.graph:
                    walk.freeze_value(output, reason)
