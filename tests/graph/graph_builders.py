"""Small models, and the awkward twins of them that exporters write."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def init(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, order="C"), name)


def info(name: str, shape: Sequence[int | str] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    inits: list[onnx.TensorProto] | None = None,
    *,
    opset: int = 17,
    domains: dict[str, int] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    ir_version: int = 8,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, inits or [])
    imports = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(d, v) for d, v in (domains or {}).items()),
    ]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=ir_version, functions=functions or [], producer_name="test"
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def norm_inits(channels: int, generator: np.random.Generator, prefix: str = "bn") -> list[onnx.TensorProto]:
    scale, bias, mean = (generator.standard_normal(channels).astype(np.float32) for _ in range(3))
    variance = generator.uniform(0.1, 2, channels).astype(np.float32)
    return [
        init(f"{prefix}.{n}", a) for n, a in zip(("s", "b", "m", "v"), (scale, bias, mean, variance), strict=True)
    ]


def norm_node(data: str, output: str, prefix: str = "bn", **attributes: object) -> onnx.NodeProto:
    names = [f"{prefix}.{n}" for n in ("s", "b", "m", "v")]
    return helper.make_node("BatchNormalization", [data, *names], [output], name=prefix, **attributes)


def cnn(opset: int = 17, batch: int | str = "N") -> onnx.ModelProto:
    """Conv, BatchNorm, Relu, depthwise Conv, residual Add, mean over space, Gemm, Softmax."""
    g = rng()

    def w(*shape: int) -> np.ndarray:
        return (g.standard_normal(shape) / 4).astype(np.float32)

    axes = {"axes": [2, 3]} if opset < 18 else {}
    mean_inputs = ["sum"] if opset < 18 else ["sum", "axes"]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        norm_node("c1", "n1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["sum"], name="add"),
        helper.make_node("ReduceMean", mean_inputs, ["mean"], name="mean", keepdims=0, **axes),
        helper.make_node("Gemm", ["mean", "w3", "b3"], ["logits"], name="fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["y"], name="softmax"),
    ]
    inits = [init("w1", w(8, 3, 3, 3)), *norm_inits(8, g), init("w2", w(8, 1, 3, 3)), init("b2", w(8))]
    inits += [init("w3", w(10, 8)), init("b3", w(10))]
    if opset >= 18:
        inits.append(init("axes", np.array([2, 3], dtype=np.int64)))
    built = model(nodes, [info("x", [batch, 3, 8, 8])], [info("y", [batch, 10])], inits, opset=opset)
    helper.set_model_props(built, {"owner": "someone", "purpose": "tests"})
    built.graph.doc_string = "a small net"
    built.doc_string = "the whole"
    return built


def as_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Hold the weights in Constant nodes."""
    twin = copy.deepcopy(proto)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in twin.graph.initializer]
    del twin.graph.initializer[:]
    nodes += list(twin.graph.node)
    del twin.graph.node[:]
    twin.graph.node.extend(nodes)
    return twin


def as_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """List the weights as inputs, as IR version 3 wanted it."""
    twin = copy.deepcopy(proto)
    twin.ir_version = 3
    twin.graph.input.extend(info(t.name, list(t.dims), t.data_type) for t in twin.graph.initializer)
    return twin


def if_model(opset: int = 17) -> onnx.ModelProto:
    """An If whose branches hold weights, use the same names, and read a value from outside."""
    g = rng(1)

    def branch(scale: float) -> onnx.GraphProto:
        weight = (g.standard_normal((4, 3, 3, 3)) * scale).astype(np.float32)
        nodes = [
            helper.make_node("Constant", [], ["w"], value=init("w", weight)),
            helper.make_node("Conv", ["shifted", "w"], ["c"], pads=[1, 1, 1, 1]),
            norm_node("c", "n"),
            helper.make_node("Identity", ["n"], ["out"]),
        ]
        return helper.make_graph(nodes, "branch", [], [info("out", ["N", 4, 6, 6])], norm_inits(4, g))

    nodes = [
        helper.make_node("Identity", ["x"], ["shifted"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch(1), else_branch=branch(2)),
    ]
    inputs = [info("flag", [], TensorProto.BOOL), info("x", ["N", 3, 6, 6])]
    return model(nodes, inputs, [info("y", ["N", 4, 6, 6])], opset=opset)


def qdq_model() -> onnx.ModelProto:
    """A convolution that is quantized already."""
    g = rng(2)
    inits = [
        init("xs", np.float32(0.05)),
        init("xz", np.uint8(128)),
        init("w", g.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)),
        init("ws", np.full(8, 0.01, dtype=np.float32)),
        init("wz", np.zeros(8, dtype=np.int8)),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["y"], name="conv"),
    ]
    return model(nodes, [info("x", ["N", 3, 8, 8])], [info("y", ["N", 8, 6, 6])], inits)


def write(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def run(source: Path | onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    from modelkit.runtime import make_session

    return make_session(source if isinstance(source, Path) else source.SerializeToString()).run(None, feeds)
