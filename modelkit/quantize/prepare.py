"""Rewrites that compute the same and let chains of integers go on where they would break.

onnxruntime has integer kernels for GlobalAveragePool but not for ReduceMean, for Add but not for Sum, for Gemm with
a bias but not for MatMul followed by Add, for Conv but not for Pad or BatchNormalization.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node
from modelkit.graph.tensors import attribute_float, attribute_int, constant_of, opset_of


def prepare(model: ir.Model) -> list[Decision]:
    """Rewrite the main graph for static quantization, in place; twice is the same as once.

    Names of layers and of the values that remain stay, so what was calibrated on the model before fits it after.

    Args:
        model: A normalised model.

    Returns:
        A decision for each node that was rewritten.
    """
    namer = Namer(model)
    decisions: list[Decision] = []
    for node in list(model.graph):
        if node.domain or node.graph is None:
            continue
        reason = None
        match node.op_type:
            case "ReduceMean":
                reason = _mean_to_pool(model, node, namer)
            case "Sum":
                reason = _sum_to_add(node)
            case "Add":
                reason = _matmul_add_to_gemm(node)
            case "Pad":
                reason = _pad_into_conv(model, node)
            case "BatchNormalization":
                reason = _norm_to_conv(node, namer)
        if reason is not None:
            decisions.append(Decision(str(node.name or node.outputs[0].name), "rewritten", reason))
    drop_unused_initializers(model)
    return decisions


def _replace(node: ir.Node, new: list[ir.Node], old: list[ir.Node] | None = None) -> None:
    """Put nodes in the place of another; the last one's output takes over its name, type and readers."""
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(
        node.graph, node, old or [node], new, [node.outputs[0]], [new[-1].outputs[0]]
    )


def _rank(value: ir.Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else 0


def _mean_to_pool(model: ir.Model, node: ir.Node, namer: Namer) -> str | None:
    """ReduceMean over all spatial axes is GlobalAveragePool, flattened where the axes go."""
    rank, axes = _rank(node.inputs[0]), node.attributes.get_ints("axes")
    if opset_of(model) >= 18:
        constant = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = None if constant is None else [int(axis) for axis in constant.numpy().reshape(-1)]
    if rank < 3 or axes is None or sorted(axis % rank for axis in axes) != list(range(2, rank)):
        return None
    output, name = node.outputs[0], str(node.name or node.outputs[0].name)
    kept = bool(attribute_int(node, "keepdims", 1))
    pool = make_node(
        "GlobalAveragePool",
        [node.inputs[0]],
        [str(output.name) if kept else namer(f"{output.name}.pooled")],
        name=name,
    )
    nodes = [pool]
    if not kept:
        nodes.append(make_node("Flatten", [pool.outputs[0]], [str(output.name)], name=namer(f"{name}.flatten")))
    nodes[-1].outputs[0].shape = output.shape
    _replace(node, nodes)
    return "ReduceMean over all positions is GlobalAveragePool, which has an integer kernel"


def _sum_to_add(node: ir.Node) -> str | None:
    if len(node.inputs) != 2:
        return None
    node.op_type = "Add"
    return "Sum of two is Add, which has an integer kernel"


def _matmul_add_to_gemm(node: ir.Node) -> str | None:
    """MatMul of a matrix and a constant, then Add of a constant row, is Gemm."""
    for index in (0, 1):
        bias, product = constant_of(node.inputs[index]), node.inputs[1 - index]
        matmul = product.producer() if product is not None else None
        if bias is None or product is None or matmul is None or matmul.op_type != "MatMul" or matmul.domain:
            continue
        weight = constant_of(matmul.inputs[1])
        if weight is None or len(weight.shape) != 2 or _rank(matmul.inputs[0]) != 2 or not matmul.inputs[1]:
            continue
        if tuple(bias.shape) not in ((weight.shape[1],), (1, weight.shape[1])):
            continue
        if len(product.uses()) != 1 or product.is_graph_output():
            continue
        output = node.outputs[0]
        gemm = make_node(
            "Gemm",
            [matmul.inputs[0], matmul.inputs[1], node.inputs[index]],
            [str(output.name)],
            name=str(matmul.name or output.name),
            dtype=output.dtype,
            shapes=[output.shape],
        )
        _replace(node, [gemm], [node, matmul])
        return "MatMul and Add are Gemm, whose integer kernel adds the bias"
    return None


def _pad_into_conv(model: ir.Model, node: ir.Node) -> str | None:
    """Zeros around an image that only one convolution reads are that convolution's padding."""
    output, rank = node.outputs[0], _rank(node.inputs[0])
    readers = list(output.consumers())
    if rank < 3 or len(readers) != 1 or output.is_graph_output() or opset_of(model) < 11:
        return None
    conv, mode = readers[0], node.attributes.get_string("mode", "constant")
    if conv.op_type != "Conv" or conv.domain or conv.inputs[0] is not output or conv.graph is not node.graph:
        return None
    pads = constant_of(node.inputs[1])
    value = node.inputs[2] if len(node.inputs) > 2 else None
    constant = constant_of(value)
    if mode != "constant" or pads is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
        return None
    if value is not None and (constant is None or constant.numpy().any()):
        return None
    before, after = np.split(pads.numpy().reshape(-1), 2)
    if before[:2].any() or after[:2].any() or min(before.min(), after.min()) < 0:
        return None
    if conv.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    inner = np.array(conv.attributes.get_ints("pads", [0] * (2 * (rank - 2))))
    conv.attributes["pads"] = ir.AttrInt64s("pads", [int(p) for p in [*inner, *before[2:], *after[2:]]])
    conv.replace_input_with(0, node.inputs[0])
    node.graph.remove(node, safe=True)  # type: ignore[union-attr]
    return "zeros around the input of a Conv are its padding"


def _norm_to_conv(node: ir.Node, namer: Namer) -> str | None:
    """BatchNormalization in front of a Conv is a depthwise 1x1 Conv, whose one weight a channel is exact in int8."""
    source, output, rank = node.inputs[0], node.outputs[0], _rank(node.inputs[0])
    constants = [constant_of(value) for value in node.inputs[1:5]]
    if rank < 3 or source is None or len(constants) < 4 or len([o for o in node.outputs if o.name]) != 1:
        return None
    if not _read_by_conv(output):
        return None
    arrays = [constant.numpy().astype(np.float64) for constant in constants if constant is not None]
    if len(arrays) < 4 or attribute_int(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = arrays
    factor = gamma / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    name, channels, graph = str(node.name or output.name), factor.size, node.graph
    assert graph is not None
    weight = factor.reshape(channels, 1, *[1] * (rank - 2)).astype(np.float32)
    conv = make_node(
        "Conv",
        [
            source,
            add_initializer(graph, namer(f"{name}.factor"), weight),
            add_initializer(graph, namer(f"{name}.shift"), (beta - mean * factor).astype(np.float32)),
        ],
        [str(output.name)],
        name=name,
        attributes={"group": channels, "kernel_shape": [1] * (rank - 2)},
        shapes=[output.shape],
    )
    _replace(node, [conv])
    return "BatchNormalization that folds into no layer is a 1x1 Conv, which has an integer kernel"


def _read_by_conv(value: ir.Value) -> bool:
    """Whether a Conv reads a value, directly or behind its only reader, a Relu."""
    readers = list(value.consumers())
    if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        readers = list(readers[0].outputs[0].consumers())
    return any(reader.op_type == "Conv" for reader in readers)
