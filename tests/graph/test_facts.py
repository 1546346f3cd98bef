"""Facts against numbers counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_builders import (
    as_constants,
    as_inputs,
    cnn,
    if_model,
    info,
    init,
    model,
    norm_inits,
    norm_node,
    qdq_model,
)
from onnx import TensorProto, helper

from modelkit.graph.facts import LayerFacts, ModelFacts, describe
from modelkit.graph.normalise import normalise
from modelkit.graph.quantized import Scheme


def facts(proto: onnx.ModelProto, *, clean: bool = False) -> ModelFacts:
    graph = ir.serde.deserialize_model(proto)
    if clean:
        normalise(graph)
    return describe(graph)


def zeros(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    return init(name, np.zeros(shape, dtype=dtype))


def single(
    op: str, data: list[int | str], weights: dict[str, tuple[int, ...]], domain: str = "", **attributes
) -> LayerFacts:
    """Describe a model of one node."""
    opset = attributes.pop("opset", 17)
    nodes = [helper.make_node(op, ["x", *weights], ["y"], name="node", domain=domain, **attributes)]
    proto = model(
        nodes,
        [info("x", data)],
        [onnx.ValueInfoProto(name="y")],
        [zeros(n, *s) for n, s in weights.items()],
        opset=opset,
        domains={domain: 1} if domain else None,
    )
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    found = facts(proto)
    assert found.macs == found.layers[0].macs
    return found.layers[0]


@pytest.mark.parametrize("twin", [lambda p: p, as_constants, as_inputs], ids=["plain", "constants", "inputs"])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_small_net(twin, opset: int) -> None:
    found = facts(twin(cnn(opset)), clean=True)
    conv1, conv2, gemm = 8 * 8 * 8 * 3 * 9, 8 * 8 * 8 * 9, 8 * 10
    assert found.macs == conv1 + conv2 + gemm
    assert found.parameters == (8 * 27 + 8) + (8 * 9 + 8) + (80 + 10)
    assert found.parameter_bytes == 4 * found.parameters
    assert [(layer.name, layer.op, layer.macs) for layer in found.layers] == [
        ("conv1", "Conv", conv1),
        ("conv2", "Conv", conv2),
        ("fc", "Gemm", gemm),
    ]
    assert [layer.parameters for layer in found.layers] == [224, 80, 90]
    assert found.layers[0].input_shapes == ((1, 3, 8, 8),)
    assert found.layers[0].output_shape == (1, 8, 8, 8)
    assert found.layers[0].weight_shapes == ((8, 3, 3, 3), (8,))
    assert found.layers[0].weight_dtype == "float"
    assert (found.opset, found.domains, found.producer) == (opset, {}, "test")
    assert [(t.name, t.dtype, t.shape) for t in found.inputs] == [("x", "float", ("N", 3, 8, 8))]
    assert [(t.name, t.shape) for t in found.outputs] == [("y", ("N", 10))]
    assert next(iter(found.op_counts.items())) == ("Conv", 2)


def test_before_cleaning_the_weights_are_the_same() -> None:
    for twin in (cnn(), as_constants(cnn())):
        found = facts(twin)
        assert found.parameters == 8 * 27 + 32 + 8 * 9 + 8 + 90
        assert {layer.op for layer in found.layers} == {"Conv", "BatchNormalization", "Gemm"}
    assert [t.name for t in facts(as_inputs(cnn())).inputs] == ["x"]


def test_resnet18() -> None:
    """The published 1.814 GMACs (convolutions and the last layer) and 11.68 M weights and biases."""
    nodes: list[onnx.NodeProto] = []
    inits: list[onnx.TensorProto] = []

    def conv(data: str, inside: int, outside: int, kernel: int, stride: int) -> str:
        name = f"c{len(nodes)}"
        inits.extend([zeros(f"{name}.w", outside, inside, kernel, kernel), zeros(f"{name}.b", outside)])
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [data, f"{name}.w", f"{name}.b"], [name], strides=[stride] * 2, pads=pads)
        )
        return name

    def add(op: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    value = add("Relu", conv("x", 3, 64, 7, 2))
    value = add("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inside = 64
    for outside in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and outside != 64 else 1
            short = value if stride == 1 else conv(value, inside, outside, 1, stride)
            value = conv(add("Relu", conv(value, inside, outside, 3, stride)), outside, outside, 3, 1)
            value, inside = add("Relu", add("Add", value, short)), outside
    value = add("Flatten", add("GlobalAveragePool", value))
    inits += [zeros("fc.w", 1000, 512), zeros("fc.b", 1000)]
    nodes.append(helper.make_node("Gemm", [value, "fc.w", "fc.b"], ["y"], transB=1))
    found = facts(model(nodes, [info("x", ["batch", 3, 224, 224])], [info("y", ["batch", 1000])], inits))
    assert found.macs == 1_814_073_344
    assert found.parameters == 11_684_712
    assert found.macs_unknown == []


@pytest.mark.parametrize(
    ("op", "data", "weights", "attributes", "macs"),
    [
        ("Conv", [1, 4, 9, 9], {"w": (6, 2, 3, 3)}, {"group": 2, "dilations": [2, 2]}, 6 * 5 * 5 * 2 * 9),
        ("Conv", [2, 3, 10], {"w": (4, 3, 5)}, {"strides": [2]}, 2 * 4 * 3 * 15),
        ("ConvTranspose", [1, 4, 5, 5], {"w": (4, 3, 2, 2)}, {"strides": [2, 2], "group": 2}, 4 * 25 * 3 * 4),
        ("Gemm", [5, 7], {"w": (7, 3)}, {}, 5 * 7 * 3),
        ("Gemm", [7, 5], {"w": (3, 7)}, {"transA": 1, "transB": 1}, 5 * 7 * 3),
        ("MatMul", ["N", 6, 7], {"w": (7, 3)}, {}, 6 * 7 * 3),
        ("MatMul", [4, 1, 6, 7], {"w": (5, 7, 3)}, {}, 4 * 5 * 6 * 7 * 3),
        ("MatMul", [7], {"w": (7,)}, {}, 7),
        ("LSTM", [9, 2, 5], {"w": (1, 16, 5), "r": (1, 16, 4)}, {"hidden_size": 4}, 9 * 2 * 16 * 9),
        (
            "GRU",
            [9, 2, 5],
            {"w": (2, 12, 5), "r": (2, 12, 4)},
            {"hidden_size": 4, "direction": "bidirectional"},
            9 * 2 * 2 * 12 * 9,
        ),
        ("RNN", [2, 9, 5], {"w": (1, 4, 5), "r": (1, 4, 4)}, {"hidden_size": 4, "layout": 1}, 18 * 4 * 9),
        ("Einsum", [2, 3, 4], {"w": (4, 5)}, {"equation": "bij,jk->bik"}, 2 * 3 * 4 * 5),
    ],
)
def test_operators(op: str, data: list, weights: dict, attributes: dict, macs: int) -> None:
    layer = single(op, data, weights, **attributes)
    assert layer.macs == macs
    assert layer.parameters == sum(int(np.prod(s)) for s in weights.values())


@pytest.mark.parametrize(
    ("op", "data", "weights", "attributes", "macs"),
    [
        (
            "FusedConv",
            [1, 3, 8, 8],
            {"w": (4, 3, 3, 3)},
            {"pads": [1, 1, 1, 1], "strides": [2, 2]},
            4 * 16 * 27,
        ),
        (
            "FusedConv",
            [1, 3, 7, 7],
            {"w": (4, 3, 3, 3)},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            4 * 16 * 27,
        ),
        ("FusedMatMul", [2, 7, 6], {"w": (3, 7)}, {"transA": 1, "transB": 1}, 2 * 6 * 7 * 3),
    ],
)
def test_operators_of_onnxruntime(op: str, data: list, weights: dict, attributes: dict, macs: int) -> None:
    assert single(op, data, weights, domain="com.microsoft", **attributes).macs == macs


def test_four_bit_products_of_onnxruntime() -> None:
    inits = [zeros("q", 32, 2, 16, dtype=np.uint8), zeros("s", 64)]
    nodes = [
        helper.make_node(
            "MatMulNBits", ["x", "q", "s"], ["y"], domain="com.microsoft", K=64, N=32, bits=4, block_size=32
        )
    ]
    proto = model(nodes, [info("x", ["N", 10, 64])], [info("y", ["N", 10, 32])], inits, domains={"com.microsoft": 1})
    found = facts(proto)
    assert found.macs == 10 * 64 * 32
    assert found.quantized.scheme == Scheme.WEIGHT_ONLY
    assert found.domains == {"com.microsoft": 1}
    assert list(found.op_counts) == ["com.microsoft:MatMulNBits"]


@pytest.mark.parametrize(
    ("shapes", "attributes", "macs"),
    [
        ([(2, 4, 6, 8), (2, 4, 9, 8), (2, 4, 9, 5)], {}, 2 * 4 * 6 * 9 * (8 + 5)),
        ([(2, 6, 32), (2, 9, 16), (2, 9, 16)], {"q_num_heads": 4, "kv_num_heads": 2}, 2 * 4 * 6 * 9 * 16),
    ],
)
def test_attention(shapes: list, attributes: dict, macs: int) -> None:
    inputs = [info(n, s) for n, s in zip("qkv", shapes, strict=True)]
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], **attributes)]
    proto = model(nodes, inputs, [onnx.ValueInfoProto(name="y")], opset=23, ir_version=11)
    assert facts(proto).macs == macs


def test_the_dearer_branch_counts() -> None:
    found = facts(if_model(), clean=True)
    assert found.macs == 4 * 36 * 27
    assert [layer.macs for layer in found.layers] == [4 * 36 * 27] * 2
    assert found.parameters == 2 * (4 * 27 + 4)


def test_shapes_that_nobody_knows() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=1),
        helper.make_node("Transpose", ["f"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["y"], name="late"),
    ]
    found = facts(model(nodes, [info("x", ["N", 4])], [info("y", ["k", 3])], [zeros("w", 2, 3)]))
    assert found.macs is None
    assert found.macs_unknown == ["late"]
    assert found.layers[0].macs is None
    assert found.parameters == 6


def test_shapes_computed_from_the_batch_are_followed() -> None:
    inits = [
        init("i0", np.array(0, dtype=np.int64)),
        init("rest", np.array([-1], dtype=np.int64)),
        init("ax", np.array([0], dtype=np.int64)),
        zeros("w", 12, 5),
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i0"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "ax"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    assert facts(model(nodes, [info("x", ["N", 3, 4])], [info("y", ["N", 5])], inits)).macs == 60


def test_shared_weights_count_once() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    found = facts(model(nodes, [info("x", [1, 4])], [info("y", [1, 4])], [zeros("w", 4, 4)]))
    assert (found.parameters, found.parameter_bytes, found.macs) == (16, 64, 32)
    assert [layer.parameters for layer in found.layers] == [16, 16]


# What is quantized already


def test_qdq() -> None:
    found = facts(qdq_model())
    assert found.quantized.scheme == Scheme.QDQ
    assert found.quantized.counts == {"DequantizeLinear": 2, "QuantizeLinear": 1}
    assert found.quantized.weights == 1
    assert [(layer.op, layer.weight_dtype, layer.bytes, layer.macs) for layer in found.layers] == [
        ("Conv", "int8", 8 * 27, 8 * 36 * 27)
    ]
    assert found.parameters == 8 * 27
    assert next((d.action, d.reason) for d in found.blockers) == ("stops", "it is already quantized (qdq)")


def test_weight_only_in_both_spellings() -> None:
    cast = [helper.make_node("Cast", ["q"], ["c"], to=1), helper.make_node("Mul", ["c", "s"], ["w"])]
    dequantize = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"])]
    for decode in (cast, dequantize):
        nodes = [*decode, helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")]
        inits = [zeros("q", 32, 16, dtype=np.int8), init("s", np.float32(0.1))]
        found = facts(model(nodes, [info("x", ["N", 32])], [info("y", ["N", 16])], inits), clean=True)
        assert found.quantized.scheme == Scheme.WEIGHT_ONLY
        assert found.quantized.weights == 1
        assert [(layer.name, layer.bytes, layer.weight_dtype) for layer in found.layers] == [("mm", 512, "int8")]


def test_integer_operators() -> None:
    inits = [zeros("w", 16, 4, dtype=np.int8)]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=1),
    ]
    found = facts(model(nodes, [info("x", ["N", 16])], [info("y", ["N", 4])], inits))
    assert found.quantized.scheme == Scheme.INTEGER_OPS
    assert found.macs == 64
    assert found.parameters == 64


def test_quantized_convolution_operators() -> None:
    inits = [
        init("s", np.float32(0.1)),
        init("z", np.uint8(0)),
        zeros("w", 4, 3, 3, 3, dtype=np.uint8),
        zeros("b", 4, dtype=np.int32),
    ]
    nodes = [helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z", "b"], ["y"], name="q")]
    kind = TensorProto.UINT8
    found = facts(model(nodes, [info("x", [1, 3, 5, 5], kind)], [info("y", [1, 4, 3, 3], kind)], inits))
    assert found.macs == 4 * 9 * 27
    assert found.parameters == 4 * 27 + 4


# What stands in the way


def reasons(proto: onnx.ModelProto, *, clean: bool = True) -> list[tuple[str, str, str]]:
    return [(d.target, d.action, d.reason) for d in facts(proto, clean=clean).blockers]


def test_nothing_in_the_way() -> None:
    inits = [zeros("w", 32, 32)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert reasons(model(nodes, [info("x", ["N", 32])], [info("y", ["N", 32])], inits)) == []


def test_no_weights() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], [info("x", [2])], [info("y", [2])])
    assert reasons(proto) == [("model", "stops", "it has no weights of a convolution, product, RNN or embedding")]


def test_an_old_opset_and_small_weights() -> None:
    found = reasons(cnn(11))
    assert ("model", "limits", "scales for each channel need opset 13; it has 11 and is raised") in found
    assert ("w2", "limits", "it has only 72 numbers") in found
    assert ("w1", "limits", "it has only 216 numbers") in found


def test_custom_operators() -> None:
    nodes = [
        helper.make_node("Magic", ["x"], ["m"], domain="acme"),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    proto = model(nodes, [info("x", ["N", 32])], [info("y", ["N", 32])], [zeros("w", 32, 32)], domains={"acme": 1})
    assert reasons(proto) == [("acme:Magic", "stops", "a custom operator (1x) that stock onnxruntime lacks")]
    assert facts(proto).domains == {"acme": 1}


def test_shared_and_computed_weights() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="look"),
        helper.make_node("Transpose", ["table"], ["t"], perm=[1, 0], name="flip"),
        helper.make_node("MatMul", ["e", "t"], ["y"], name="head"),
    ]
    inputs = [info("ids", ["N", 5], TensorProto.INT64)]
    found = reasons(model(nodes, inputs, [info("y", ["N", 5, 50])], [zeros("table", 50, 16)]))
    assert ("head", "limits", "its weight is computed at run time by Transpose") in found
    assert ("table", "limits", "it is shared by different parts: embedding of look, other of flip") in found


def test_norms_have_parameters_but_no_products() -> None:
    proto = model(
        [norm_node("x", "y")],
        [info("x", [1, 4, 5, 5])],
        [info("y", [1, 4, 5, 5])],
        norm_inits(4, np.random.default_rng(0)),
    )
    found = facts(proto)
    assert (found.macs, found.parameters, found.layers[0].macs) == (0, 16, 0)
