"""Models for the tests of folders: small good ones, and evil ones that are real."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES = Path(__file__).parents[2] / "sample_models"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 123\n"


def mlp(
    path: Path,
    *,
    seed: int = 0,
    width: int = 64,
    middle: Sequence[onnx.NodeProto] = (),
    extra: Sequence[onnx.TensorProto] = (),
) -> Path:
    """Write a multilayer perceptron, different for each seed; nodes given go between its layers, from h to r."""
    random = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array((random.standard_normal((16, width)) / 4).astype("f4"), "w0"),
        numpy_helper.from_array((random.standard_normal((width, 10)) / 8).astype("f4"), "w1"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
        *(middle or [helper.make_node("Relu", ["h"], ["r"], name="relu")]),
        helper.make_node("MatMul", ["r", "w1"], ["y"], name="second"),
    ]
    return write(path, nodes, [*weights, *extra])


def write(path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], domain: str = "") -> Path:
    """Write a model from x [N, 16] to y [N, 10]."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def custom_op(path: Path) -> Path:
    """Write a model with an operator that onnxruntime does not know."""
    weight = numpy_helper.from_array(np.ones((16, 10), "f4"), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Secret", ["h"], ["y"], name="secret", domain="com.example"),
    ]
    return write(path, nodes, [weight], "com.example")


def endless(path: Path) -> Path:
    """Write a valid model that runs for centuries: a loop of 2^62 turns."""
    extra = [
        numpy_helper.from_array(np.array(2**62, "i8"), "turns"),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["condition_out"]),
            helper.make_node("Tanh", ["state"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "go", "h"], ["r"], name="loop", body=body)
    return mlp(path, middle=[loop], extra=extra)


def hungry(path: Path, gigabytes: int) -> Path:
    """Write a small valid model that fills that much memory when it runs."""
    extra = [
        numpy_helper.from_array(np.array([gigabytes << 28], "i8"), "shape"),
        numpy_helper.from_array(np.array([0], "i8"), "axes"),
    ]
    middle = [
        helper.make_node("ReduceMax", ["h"], ["top"], name="top", keepdims=0),
        helper.make_node("Unsqueeze", ["top", "axes"], ["one"], name="one"),
        helper.make_node("Expand", ["one", "shape"], ["large"], name="large"),
        helper.make_node("ReduceMean", ["large"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Add", ["h", "mean"], ["r"], name="sum"),
    ]
    return mlp(path, middle=middle, extra=extra)


def zoo(folder: Path, good: int = 6) -> dict[str, str]:
    """Fill a folder with good and evil models; returns how each will end, by its path below the folder."""
    ends = {}
    for number in range(good):
        name = ["plain/m{}.onnx", "with space/ä {}.onnx", "m{}.onnx"][number % 3].format(number)
        mlp(folder / name, seed=number)
        ends[name] = "done"
    shutil.copy(SAMPLES / "twins" / "digits_mlp_external.onnx", folder / "plain")
    shutil.copy(SAMPLES / "twins" / "digits_mlp_external.onnx.data", folder / "plain")
    (folder / "cut.onnx").write_bytes(mlp(folder / "cut.onnx").read_bytes()[:1000])
    (folder / "pointer.onnx").write_text(POINTER)
    (folder / "empty.onnx").write_bytes(b"")
    custom_op(folder / "custom.onnx")
    (folder / "README.md").write_text("not a model")
    ends |= {"plain/digits_mlp_external.onnx": "done"}
    return ends | dict.fromkeys(["cut.onnx", "pointer.onnx", "empty.onnx", "custom.onnx"], "failed")
