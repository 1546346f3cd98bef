"""Forms that integer kernels exist for, in the place of others that compute the same.

A mean over space becomes GlobalAveragePool, zero padding a part of its convolution, a sum of two Add, a MatMul with
a constant row added Gemm, a normalisation in front of a convolution a 1x1 convolution. Without them onnxruntime
leaves the int8 chain and comes back. HardSwish and HardSigmoid that are written in pieces become one operator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node
from modelkit.graph.tensors import attribute_float, attribute_int, constant_of
from modelkit.quantize.hard import join_hard


def canonicalise(model: ir.Model) -> list[Decision]:
    """Rewrite what can be, in place. The opset must be 13 or more.

    Returns:
        A decision for each node that was rewritten.
    """
    namer = Namer(model)
    decisions = join_hard(model)
    for node in list(model.graph):
        if node.domain or node.graph is None:
            continue
        decision = None
        if node.op_type == "ReduceMean" and _is_spatial_mean(node):
            decision = _pool(model, node, namer)
        elif node.op_type == "Pad":
            decision = _pad_into_conv(model, node)
        elif node.op_type in _REWRITES:
            reason = _REWRITES[node.op_type](node, namer)
            if reason is not None:
                decision = Decision(str(node.name or node.outputs[0].name), "rewritten", reason)
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


def _replace(node: ir.Node, new: list[ir.Node], old: list[ir.Node] | None = None) -> None:
    """Put nodes in the place of another; the last one's output takes over its name, type and readers."""
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(
        node.graph, node, old or [node], new, [node.outputs[0]], [new[-1].outputs[0]]
    )


def _rank(value: ir.Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else 0


def _sum_to_add(node: ir.Node, namer: Namer) -> str | None:
    if len(node.inputs) != 2:
        return None
    node.op_type = "Add"
    return "Sum of two is Add, which has an integer kernel"


def _matmul_add_to_gemm(node: ir.Node, namer: Namer) -> str | None:
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
        if not _read_once(product):
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
    """Whether a Conv reads a value, directly or behind what disappears into the layer before it."""
    readers = list(value.consumers())
    while len(readers) == 1 and readers[0].op_type in ("Relu", "Clip", "Mul", "Add"):
        readers = list(readers[0].outputs[0].consumers())
    return any(reader.op_type == "Conv" for reader in readers)


def _read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _add(node: ir.Node, namer: Namer) -> str | None:
    return _matmul_add_to_gemm(node, namer) or _into_conv(node, namer)


def _into_conv(node: ir.Node, namer: Namer) -> str | None:
    """A product with, or sum of, one constant a channel right behind a Conv is a part of that Conv."""
    for index in (0, 1):
        factor, product = constant_of(node.inputs[index]), node.inputs[1 - index]
        conv = product.producer() if product is not None else None
        if (
            factor is None
            or product is None
            or conv is None
            or conv.op_type != "Conv"
            or conv.graph is not node.graph
        ):
            continue
        weight = constant_of(conv.inputs[1])
        biased = len(conv.inputs) > 2 and conv.inputs[2] is not None
        bias = constant_of(conv.inputs[2]) if biased else None
        if weight is None or (biased and bias is None) or len(product.uses()) != 1 or product.is_graph_output():
            continue
        rank, channels = len(weight.shape), int(weight.shape[0])  # type: ignore[arg-type]
        shape = (1,) * (rank - len(factor.shape)) + tuple(factor.shape)
        if len(shape) > rank or shape not in ((1,) * rank, (1, channels, *[1] * (rank - 2))):
            continue
        numbers = np.broadcast_to(factor.numpy().astype(np.float64).reshape(-1), (channels,))
        old = np.zeros(channels) if bias is None else bias.numpy().astype(np.float64)
        label, graph = str(node.name or node.outputs[0].name), node.graph
        assert graph is not None
        if node.op_type == "Mul":
            scaled = weight.numpy().astype(np.float64) * numbers.reshape(channels, *[1] * (rank - 1))
            conv.replace_input_with(1, add_initializer(graph, namer(f"{label}.weight"), scaled.astype(np.float32)))
        new = old * numbers if node.op_type == "Mul" else old + numbers
        if bias is not None or node.op_type == "Add":
            if not biased:
                conv.resize_inputs(3)
            conv.replace_input_with(2, add_initializer(graph, namer(f"{label}.bias"), new.astype(np.float32)))
        name = str(node.outputs[0].name)
        ir.convenience.replace_all_uses_with([node.outputs[0]], [product], replace_graph_outputs=True)
        graph.remove(node, safe=True)
        product.name = name
        return f"one constant a channel is a part of the Conv before it, {conv.name}"
    return None


_REWRITES: dict[str, Callable[[ir.Node, Namer], str | None]] = {
    "Sum": _sum_to_add,
    "Add": _add,
    "Mul": _into_conv,
    "BatchNormalization": _norm_to_conv,
}
