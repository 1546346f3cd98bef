"""Each initializer with the parts it plays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_builders import cnn, if_model, info, init, model, qdq_model
from onnx import TensorProto, helper

from modelkit.graph.layers import Role, input_vocabulary, weight_uses
from modelkit.graph.normalise import normalise


def zeros(name: str, *shape: int) -> onnx.TensorProto:
    return init(name, np.zeros(shape, dtype=np.float32))


def parts(proto: onnx.ModelProto, *, clean: bool = True) -> dict[str, list[tuple[Role, int | None, tuple[int, ...]]]]:
    graph = ir.serde.deserialize_model(proto)
    if clean:
        normalise(graph)
    found: dict[str, list] = {}
    for use in weight_uses(graph):
        found.setdefault(use.value.name or "", []).append((use.role, use.channel_axis, use.reduce_axes))
        assert use.consumers
        assert all(node.inputs[index] is use.value for node, index in use.consumers)
    return found


def test_a_small_net() -> None:
    found = parts(cnn())
    assert found["w1"] == [(Role.CONV_WEIGHT, 0, (1, 2, 3))]
    assert found["w2"] == [(Role.CONV_WEIGHT, 0, (1, 2, 3))]
    assert found["w3"] == [(Role.GEMM_WEIGHT, 0, (1,))]
    assert found["b2"] == found["b3"] == [(Role.BIAS, None, ())]


@pytest.mark.parametrize(
    ("op", "inputs", "shape", "attributes", "expected"),
    [
        ("ConvTranspose", ["x", "w"], (4, 3, 2, 2), {}, (Role.CONV_WEIGHT, 1, (0, 2, 3))),
        ("Gemm", ["x", "w"], (4, 3), {}, (Role.GEMM_WEIGHT, 1, (0,))),
        ("Gemm", ["x", "w"], (3, 4), {"transB": 1}, (Role.GEMM_WEIGHT, 0, (1,))),
        ("Gemm", ["w", "x"], (3, 4), {}, (Role.GEMM_WEIGHT, 0, (1,))),
        ("Gemm", ["w", "x"], (4, 3), {"transA": 1}, (Role.GEMM_WEIGHT, 1, (0,))),
        ("MatMul", ["x", "w"], (4, 3), {}, (Role.MATMUL_WEIGHT, 1, (0,))),
        ("MatMul", ["x", "w"], (2, 4, 3), {}, (Role.MATMUL_WEIGHT, 2, (0, 1))),
        ("MatMul", ["w", "x"], (3, 4), {}, (Role.MATMUL_WEIGHT, 0, (1,))),
        ("MatMul", ["x", "w"], (4,), {}, (Role.OTHER, None, ())),
        ("Gather", ["w", "x"], (9, 4), {}, (Role.EMBEDDING, 0, (1,))),
        ("Gather", ["w", "x"], (9, 4), {"axis": 1}, (Role.OTHER, None, ())),
        ("LayerNormalization", ["x", "w"], (4,), {}, (Role.NORM, None, ())),
        ("BatchNormalization", ["x", "w", "w", "w", "w"], (4,), {}, (Role.NORM, None, ())),
        ("Mul", ["x", "w"], (4,), {}, (Role.OTHER, None, ())),
        ("Add", ["x", "w"], (4,), {}, (Role.OTHER, None, ())),
        ("QuantizeLinear", ["x", "w"], (), {}, (Role.QUANTIZATION, None, ())),
    ],
)
def test_parts(op: str, inputs: list[str], shape: tuple[int, ...], attributes: dict, expected: tuple) -> None:
    nodes = [helper.make_node(op, inputs, ["y"], **attributes)]
    proto = model(nodes, [info("x", None)], [onnx.ValueInfoProto(name="y")], [zeros("w", *shape)])
    assert parts(proto, clean=False) == {"w": [expected]}


def test_recurrent_layers() -> None:
    nodes = [helper.make_node("LSTM", ["x", "w", "r", "b", "", "h"], ["y"], hidden_size=4)]
    inits = [zeros("w", 1, 16, 5), zeros("r", 1, 16, 4), zeros("b", 1, 32), zeros("h", 1, 2, 4)]
    assert parts(model(nodes, [info("x", [3, 2, 5])], [info("y", None)], inits), clean=False) == {
        "w": [(Role.RECURRENT_WEIGHT, 1, (0, 2))],
        "r": [(Role.RECURRENT_WEIGHT, 1, (0, 2))],
        "b": [(Role.BIAS, None, ())],
        "h": [(Role.OTHER, None, ())],
    }


def test_a_bias_behind_a_product_and_shapes() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["b", "m"], ["a"]),
        helper.make_node("Reshape", ["a", "s"], ["y"]),
    ]
    inits = [zeros("w", 4, 3), zeros("b", 3), init("s", np.array([-1], dtype=np.int64))]
    found = parts(model(nodes, [info("x", ["N", 4])], [info("y", ["n"])], inits))
    assert found == {
        "w": [(Role.MATMUL_WEIGHT, 1, (0,))],
        "b": [(Role.BIAS, None, ())],
        "s": [(Role.OTHER, None, ())],
    }


def test_quantized_weights_and_scales() -> None:
    found = parts(qdq_model())
    assert found["w"] == [(Role.QUANTIZED, None, ())]
    assert {name for name, uses in found.items() if uses[0][0] == Role.QUANTIZATION} == {
        "xs",
        "xz",
        "ws",
        "wz",
    }


def test_weights_of_branches() -> None:
    found = parts(if_model())
    assert [uses[0][0] for name, uses in found.items() if name.startswith("w")] == [Role.CONV_WEIGHT] * 2


def test_a_weight_with_two_parts_has_two_uses() -> None:
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["e"]),
        helper.make_node("Gemm", ["e", "w"], ["y"], transB=1),
        helper.make_node("Gemm", ["e", "w"], ["z"], transB=1),
    ]
    proto = model(
        nodes,
        [info("ids", ["N"], TensorProto.INT64)],
        [info("y", ["N", 9]), info("z", ["N", 9])],
        [zeros("w", 9, 4)],
    )
    graph = ir.serde.deserialize_model(proto)
    uses = weight_uses(graph)
    assert [(u.role, u.channel_axis, len(u.consumers)) for u in uses] == [
        (Role.EMBEDDING, 0, 1),
        (Role.GEMM_WEIGHT, 0, 2),
    ]
    assert uses[0].value is uses[1].value


def test_a_default_of_an_input_is_no_weight() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    proto = model(nodes, [info("x", [1, 4]), info("w", [4, 3])], [info("y", [1, 3])], [zeros("w", 4, 3)])
    assert parts(proto, clean=False) == {}


def test_vocabulary_is_found_behind_casts() -> None:
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "wide"], ["e"]),
        helper.make_node("Gather", ["kinds", "types"], ["t"]),
        helper.make_node("Gather", ["fewer", "ids"], ["f"]),
        helper.make_node("Sum", ["e", "t", "f"], ["y"]),
    ]
    inits = [zeros("words", 1000, 8), zeros("kinds", 2, 8), zeros("fewer", 500, 8)]
    inputs = [info("ids", ["N", 5], TensorProto.INT32), info("types", ["N", 5], TensorProto.INT64)]
    graph = ir.serde.deserialize_model(model(nodes, inputs, [info("y", ["N", 5, 8])], inits))
    assert input_vocabulary(graph) == {"ids": 500, "types": 2}
