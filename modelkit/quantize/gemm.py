"""Gemm as MatMul and Add: the form whose weights onnxruntime reads as integers, and the faster one without bias."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node, owner_of, prepend
from modelkit.graph.tensors import static_shape


def is_plain_gemm(node: ir.Node) -> bool:
    """Tell whether a Gemm is x·W (+ b) with a constant W: no scaling and no transposed input."""
    attributes = node.attributes
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    return (
        node.op_type == "Gemm"
        and not node.domain
        and attributes.get_float("alpha", 1.0) == 1.0
        and (not biased or attributes.get_float("beta", 1.0) == 1.0)
        and not attributes.get_int("transA", 0)
        and node.inputs[1] is not None
        and node.inputs[1].is_initializer()
    )


def gemms_to_matmul(model: ir.Model) -> int:
    """Rewrite every plain Gemm as MatMul and Add, in place; weights stored transposed are turned round.

    Node and weight names stay, so that patterns and decisions go on meaning the same thing.

    Returns:
        How many were rewritten.
    """
    namer = Namer(model)
    turned: dict[int, ir.Value] = {}
    nodes = [node for node in model.graph.all_nodes() if is_plain_gemm(node) and _can_turn(node)]
    for node in nodes:
        _rewrite(node, namer, turned)
    drop_unused_initializers(model)
    return len(nodes)


def _can_turn(node: ir.Node) -> bool:
    """Whether the weight lies right, or every reader wants it turned: two copies would cost bytes."""
    weight = node.inputs[1]
    assert weight is not None
    if not node.attributes.get_int("transB", 0):
        return True
    return not weight.is_graph_output() and all(
        is_plain_gemm(use.node) and use.idx == 1 and use.node.attributes.get_int("transB", 0) for use in weight.uses()
    )


def biasless_to_matmul(model: ir.Model) -> int:
    """Rewrite Gemm without a bias as MatMul, in place, where its weight is a constant or unpacked at load.

    onnxruntime runs the two alike, MatMul with less work around it (2 to 3 % of a net of 10 µs). A weight that lies
    transposed gets a ``Transpose``, which is folded when the session is made. Gemm stays in front of an activation,
    with which only it is fused, and where the weight is so large that nothing is gained.

    Returns:
        How many were rewritten.
    """
    namer = Namer(model)
    turned: dict[int, ir.Value] = {}
    nodes = [node for node in model.graph.all_nodes() if _is_bare_product(node)]
    for node in nodes:
        graph, weight, output = node.graph, node.inputs[1], node.outputs[0]
        assert graph is not None and weight is not None
        if node.attributes.get_int("transB", 0):
            weight = _turned_at_load(weight, namer, turned)
        name = str(node.name or output.name)
        matmul = make_node(
            "MatMul",
            [node.inputs[0], weight],
            [str(output.name)],
            name=name,
            dtype=output.dtype,
            shapes=[output.shape],
        )
        ir.convenience.replace_nodes_and_values(graph, node, [node], [matmul], [output], [matmul.outputs[0]])
    return len(nodes)


# Numbers in a weight beyond which what Gemm does around the product is less than 0.1 % of it.
_LARGE = 1 << 18
# What onnxruntime fuses with the Gemm in front of it.
_ACTIVATIONS = {"Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh"}


def _is_bare_product(node: ir.Node) -> bool:
    if node.op_type != "Gemm" or node.domain or (len(node.inputs) > 2 and node.inputs[2] is not None):
        return False
    scaled = node.attributes.get_float("alpha", 1.0) != 1.0 or node.attributes.get_int("transA", False)
    weight = node.inputs[1]
    if scaled or weight is None or weight.is_graph_input() or not _folds_at_load(weight):
        return False
    shape = static_shape(weight)
    if shape is None or math.prod(shape) > _LARGE:
        return False
    return not any(reader.op_type in _ACTIVATIONS for reader in node.outputs[0].consumers())


def _folds_at_load(value: ir.Value) -> bool:
    """Whether a weight is a constant, or Cast and the like of constants."""
    node = value.producer()
    if node is None:
        return value.is_initializer()
    return node.op_type in ("Cast", "Sub", "Mul", "Reshape") and all(
        source is not None and _folds_at_load(source) for source in node.inputs
    )


def _turned_at_load(weight: ir.Value, namer: Namer, turned: dict[int, ir.Value]) -> ir.Value:
    """A Transpose behind a weight, made once."""
    if id(weight) not in turned:
        name = f"{weight.name}.turned"
        node = make_node(
            "Transpose", [weight], [namer(name)], name=namer(f"{name}.transpose"), attributes={"perm": [1, 0]}
        )
        node.outputs[0].type = weight.type
        maker = weight.producer()
        if maker is not None and maker.graph is not None:
            maker.graph.insert_after(maker, node)
        else:
            prepend(owner_of(weight), [node])
        turned[id(weight)] = node.outputs[0]
    return turned[id(weight)]


def keep_apart(model: ir.Model) -> int:
    """Write x·W + y as Sum, not Add, where W comes from a DequantizeLinear, in place.

    onnxruntime joins MatMul and Add to Gemm, and that with a Relu to FusedGemm, before it looks at quantized weights.
    Where y is a residual, or a Relu follows, it then has no kernel that reads them: they would be unpacked at each
    inference (12 times slower on a small net). Sum of two is the same arithmetic and is left alone.

    Returns:
        How many were rewritten.
    """
    count = 0
    for node in model.graph.all_nodes():
        if node.op_type == "Add" and not node.domain and any(_reads_integers(value) for value in node.inputs):
            node.op_type = "Sum"
            count += 1
    return count


def _reads_integers(product: ir.Value | None) -> bool:
    """Whether a value is the product of a MatMul with dequantized weights."""
    matmul = product.producer() if product is not None else None
    if matmul is None or matmul.op_type != "MatMul" or matmul.inputs[1] is None:
        return False
    weight = matmul.inputs[1].producer()
    return weight is not None and weight.op_type == "DequantizeLinear"


def _rewrite(node: ir.Node, namer: Namer, turned: dict[int, ir.Value]) -> None:
    graph, weight, output = node.graph, node.inputs[1], node.outputs[0]
    assert graph is not None and weight is not None
    if node.attributes.get_int("transB", 0):
        weight = _transposed(weight, namer, turned)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    name, result = str(node.name or output.name), str(output.name)
    product_name = namer(f"{name}.product") if bias is not None else result
    matmul = make_node(
        "MatMul",
        [node.inputs[0], weight],
        [product_name],
        name=name,
        dtype=output.dtype,
        shapes=[output.shape],
    )
    nodes = [matmul]
    if bias is not None:
        nodes.append(
            make_node(
                "Add",
                [matmul.outputs[0], bias],
                [result],
                name=namer(f"{name}.bias"),
                dtype=output.dtype,
                shapes=[output.shape],
            )
        )
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [output], [nodes[-1].outputs[0]])


def _transposed(weight: ir.Value, namer: Namer, turned: dict[int, ir.Value]) -> ir.Value:
    """Return the transposed twin of a weight, made once; it takes the name, as every reader is turned too."""
    if id(weight) not in turned:
        graph, name = owner_of(weight), str(weight.name)
        array = weight.const_value.numpy().T  # type: ignore[union-attr]
        del graph.initializers[name]
        weight.name = None
        turned[id(weight)] = add_initializer(graph, name, np.ascontiguousarray(array))
    return turned[id(weight)]
