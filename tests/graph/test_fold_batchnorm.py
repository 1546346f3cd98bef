"""BatchNormalization folded into random layers computes what it computed before."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from graph_builders import FLOAT, info, init, model, norm_inits, norm_node
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from modelkit.graph.fold_batchnorm import fold_batchnorm
from modelkit.graph.shapes import infer_shapes
from modelkit.runtime import make_session


def check(proto: onnx.ModelProto, left: list[str]) -> None:
    onnx.checker.check_model(proto, full_check=True)
    graph = ir.serde.deserialize_model(proto)
    infer_shapes(graph)
    decisions = fold_batchnorm(graph)
    assert [d.action for d in decisions] == ["folded"], decisions
    assert [n.op_type for n in graph.graph] == left
    folded = ir.serde.serialize_model(graph)
    onnx.checker.check_model(folded, full_check=True)
    shape = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    before, after = (
        make_session(p.SerializeToString(), optimize=False).run(None, {"x": x})[0] for p in (proto, folded)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * max(1, np.abs(before).max()))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    transpose=st.booleans(),
    groups=st.integers(1, 4),
    inside=st.integers(1, 3),
    outside=st.integers(1, 3),
    rank=st.integers(1, 3),
    kernel=st.integers(1, 3),
    biased=st.booleans(),
    opset=st.sampled_from([8, 9, 13, 14, 15, 21]),
    epsilon=st.sampled_from([0.0, 1e-5, 1e-3, 0.1]),
)
def test_convolutions(
    seed: int,
    transpose: bool,
    groups: int,
    inside: int,
    outside: int,
    rank: int,
    kernel: int,
    biased: bool,
    opset: int,
    epsilon: float,
) -> None:
    g = np.random.default_rng(seed)
    channels = groups * outside
    first = (groups * inside, outside) if transpose else (channels, inside)
    inits = [
        init("w", g.standard_normal((*first, *[kernel] * rank)).astype(np.float32)),
        *norm_inits(channels, g),
    ]
    inputs = ["x", "w"]
    if biased:
        inits.append(init("b", g.standard_normal(channels).astype(np.float32)))
        inputs.append("b")
    nodes = [
        helper.make_node("ConvTranspose" if transpose else "Conv", inputs, ["c"], group=groups),
        norm_node("c", "y", epsilon=epsilon),
    ]
    shape = ["N", groups * inside, *[4] * rank]
    proto = model(nodes, [info("x", shape)], [info("y", None)], inits, opset=opset)
    del proto.graph.output[:]
    side = 4 + kernel - 1 if transpose else 4 - kernel + 1
    proto.graph.output.append(info("y", ["N", channels, *[side] * rank]))
    check(proto, ["ConvTranspose" if transpose else "Conv"])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    layer=st.sampled_from(["Gemm", "MatMul", "MatMul+Add", "Add+MatMul"]),
    flipped=st.booleans(),
    bias=st.sampled_from([None, (), (1,), (5,), (1, 5)]),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, -2.0]),
)
def test_matrix_products(
    seed: int, layer: str, flipped: bool, bias: tuple[int, ...] | None, alpha: float, beta: float
) -> None:
    g = np.random.default_rng(seed)
    w = g.standard_normal((5, 7) if layer == "Gemm" and flipped else (7, 5)).astype(np.float32)
    inits = [init("w", w), *norm_inits(5, g)]
    if layer == "Gemm":
        inputs = ["x", "w"]
        if bias is not None:
            inputs.append("b")
            inits.append(init("b", np.asarray(g.standard_normal(bias), dtype=np.float32)))
        nodes = [helper.make_node("Gemm", inputs, ["c"], transB=int(flipped), alpha=alpha, beta=beta)]
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["m" if "Add" in layer else "c"])]
        if "Add" in layer:
            inits.append(init("b", np.asarray(g.standard_normal(bias or (5,)), dtype=np.float32)))
            nodes.append(helper.make_node("Add", ["m", "b"] if layer == "MatMul+Add" else ["b", "m"], ["c"]))
    nodes.append(norm_node("c", "y"))
    check(model(nodes, [info("x", ["N", 7])], [info("y", ["N", 5])], inits), ["Gemm"])


def test_a_product_over_three_dimensions_is_kept() -> None:
    g = np.random.default_rng(0)
    inits = [init("w", g.standard_normal((7, 5)).astype(np.float32)), *norm_inits(3, g)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["c"]), norm_node("c", "y")]
    graph = ir.serde.deserialize_model(model(nodes, [info("x", ["N", 3, 7])], [info("y", ["N", 3, 5])], inits))
    infer_shapes(graph)
    assert [d.reason for d in fold_batchnorm(graph)] == ["the MatMul before it is not known to have two dimensions"]


def test_half_precision_is_computed_in_double() -> None:
    g = np.random.default_rng(0)
    kind = onnx.TensorProto.FLOAT16
    parts = [init("w", g.standard_normal((4, 3, 1, 1)).astype(np.float32)), *norm_inits(4, g)]
    half = [init(t.name, onnx.numpy_helper.to_array(t).astype(np.float16)) for t in parts]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), norm_node("c", "y")]
    proto = model(nodes, [info("x", [1, 3, 2, 2], kind)], [info("y", [1, 4, 2, 2], kind)], half)
    graph = ir.serde.deserialize_model(proto)
    fold_batchnorm(graph)
    w, s, b, m, v = (onnx.numpy_helper.to_array(t).astype(np.float64) for t in half)
    scale = s / np.sqrt(v + 1e-5)
    expected = (w * scale[:, None, None, None]).astype(np.float16)
    np.testing.assert_array_equal(graph.graph.initializers["w"].const_value.numpy(), expected)
    assert kind != FLOAT
    bias = next(i for name, i in graph.graph.initializers.items() if name.endswith(".bias"))
    np.testing.assert_array_equal(bias.const_value.numpy(), (b - m * scale).astype(np.float16))
