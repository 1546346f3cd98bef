"""Rewrites of a clean ONNX graph into awkward ones that compute the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def _weight(graph: GraphProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(item) for item in graph.initializer if item.name == name)


def _add(graph: GraphProto, name: str, array: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _replace(graph: GraphProto, old: NodeProto, new: Iterable[NodeProto]) -> None:
    """Put nodes where another was, which keeps the order topological."""
    at = list(graph.node).index(old)
    nodes = [*graph.node[:at], *new, *graph.node[at + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)


def _user(graph: GraphProto, weight: str) -> NodeProto:
    return next(node for node in graph.node if weight in node.input)


def weights_in_constants(model: ModelProto) -> None:
    """Hold each initializer in a `Constant` node, as the exporters of several frameworks do."""
    graph = model.graph
    constants = [
        helper.make_node("Constant", [], [item.name], name=f"constant_{item.name}", value=item)
        for item in graph.initializer
    ]
    nodes = [*constants, *graph.node]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)


def initializers_as_inputs(model: ModelProto) -> None:
    """List the initializers among the graph's inputs, as IR version 3 and its opsets up to 8 demanded."""
    # Gemm with a bias and Relu read the same in both opsets; onnx has no converter downwards for Relu.
    model.opset_import[0].version = 8
    model.ir_version = 3
    for item in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)))


def external_data(model: ModelProto, path: Path) -> None:
    """Save with all weights in `<name>.data` beside the model."""
    location = f"{path.name}.data"
    path.with_name(location).unlink(missing_ok=True)
    onnx.save_model(model, path, save_as_external_data=True, location=location, size_threshold=0)
    onnx.checker.check_model(str(path), full_check=True)


def _halves(graph: GraphProto, node: NodeProto, shape: list[int]) -> tuple[list[NodeProto], list[str]]:
    """Split a node's input in two that sum up to it, by a mask over its channels and the complement."""
    mask = (np.arange(np.prod(shape)) % 2).astype(np.float32).reshape(shape)
    nodes, halves = [], []
    for part, array in (("even", 1 - mask), ("odd", mask)):
        name = _add(graph, f"{node.name}_{part}_mask", array)
        nodes.append(
            helper.make_node("Mul", [node.input[0], name], [f"{node.name}_{part}"], f"{node.name}_mul_{part}")
        )
        halves.append(f"{node.name}_{part}")
    return nodes, halves


def shared_by_same_op(model: ModelProto, weight: str) -> None:
    """Compute a Gemm or Conv as `op(even, W, b) + op(odd, W)`: one weight, two nodes of the same type."""
    graph = model.graph
    node = _user(graph, weight)
    channels = _weight(graph, weight).shape[1]
    nodes, halves = _halves(graph, node, [1, channels] if node.op_type == "Gemm" else [1, channels, 1, 1])
    for part, half in zip(("even", "odd"), halves, strict=True):
        twin = NodeProto()
        twin.CopyFrom(node)
        twin.name = f"{node.name}_{part}"
        inputs = [half, *node.input[1:3]] if part == "even" else [half, node.input[1]]
        del twin.input[:], twin.output[:]
        twin.input.extend(inputs)
        twin.output.append(f"{half}_product")
        nodes.append(twin)
    total = helper.make_node("Add", [f"{half}_product" for half in halves], list(node.output), f"{node.name}_sum")
    _replace(graph, node, [*nodes, total])


def shared_with_other_op(model: ModelProto, weight: str, area: int = 1) -> None:
    """Compute a Gemm, or a 1x1 Conv on `area` pixels, half by itself and half by a MatMul on the same weight.

    The weight is then used by the Gemm and a Transpose, or by the Conv and a Reshape.
    """
    graph = model.graph
    node = _user(graph, weight)
    outputs, inputs = _weight(graph, weight).shape[:2]
    gemm = node.op_type == "Gemm"
    nodes, (even, odd) = _halves(graph, node, [1, inputs] if gemm else [1, inputs, 1, 1])
    first = NodeProto()
    first.CopyFrom(node)
    first.input[0] = even
    first.output[0] = f"{even}_product"
    nodes.append(first)
    matrix, product = f"{node.name}_matrix", f"{odd}_product"
    if gemm:
        nodes += [
            helper.make_node("Transpose", [weight], [matrix], f"{node.name}_transpose", perm=[1, 0]),
            helper.make_node("MatMul", [odd, matrix], [product], f"{node.name}_matmul"),
        ]
    else:
        side = round(area**0.5)
        flat, back = f"{odd}_flat", f"{odd}_flat_product"
        shapes = {
            "matrix": [outputs, inputs],
            "flat": [0, inputs, area],
            "image": [0, outputs, side, side],
        }
        names = {key: _add(graph, f"{node.name}_{key}_shape", np.array(value)) for key, value in shapes.items()}
        nodes += [
            helper.make_node("Reshape", [weight, names["matrix"]], [matrix], f"{node.name}_weight_reshape"),
            helper.make_node("Reshape", [odd, names["flat"]], [flat], f"{node.name}_flatten"),
            helper.make_node("MatMul", [matrix, flat], [back], f"{node.name}_matmul"),
            helper.make_node("Reshape", [back, names["image"]], [product], f"{node.name}_unflatten"),
        ]
    total = helper.make_node("Add", [first.output[0], product], list(node.output), f"{node.name}_sum")
    _replace(graph, node, [*nodes, total])


def branches(model: ModelProto, weight: str, threshold: float) -> None:
    """Put a Gemm into both branches of an `If` on "is the mean of the first input above `threshold`?".

    One branch is the Gemm, the other MatMul and Add on a transposed copy. Both call their weight and their
    product by the same names, which subgraphs may, and take the bias from the graph around them.
    """
    graph = model.graph
    node = _user(graph, weight)
    matrix, bias = _weight(graph, weight), node.input[2]
    source, output = node.input[0], node.output[0]

    def branch(name: str, array: np.ndarray, nodes: list[NodeProto]) -> GraphProto:
        result = helper.make_tensor_value_info("branch_result", TensorProto.FLOAT, ["batch", matrix.shape[0]])
        return helper.make_graph(nodes, name, [], [result], [numpy_helper.from_array(array, "branch_weight")])

    bright = [
        helper.make_node("Gemm", [source, "branch_weight", bias], ["branch_result"], "branch_product", transB=1)
    ]
    dark = [
        helper.make_node("MatMul", [source, "branch_weight"], ["branch_sum"], "branch_product"),
        helper.make_node("Add", ["branch_sum", bias], ["branch_result"], "branch_add"),
    ]
    _add(graph, "threshold", np.array(threshold, np.float32))
    nodes = [
        helper.make_node("ReduceMean", [graph.input[0].name], ["brightness"], "brightness", keepdims=0),
        helper.make_node("Greater", ["brightness", "threshold"], ["is_bright"], "is_bright"),
        helper.make_node(
            "If",
            ["is_bright"],
            [output],
            "choose",
            then_branch=branch("bright", matrix, bright),
            else_branch=branch("dark", np.ascontiguousarray(matrix.T), dark),
        ),
    ]
    _replace(graph, node, nodes)
    kept = [item for item in graph.initializer if item.name != weight]
    del graph.initializer[:]
    graph.initializer.extend(kept)
