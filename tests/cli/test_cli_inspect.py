"""`modelkit inspect`: what is in a file, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from cli_models import cli, listing, mlp, quantize, samples
from onnx import TensorProto, helper

Capsys = pytest.CaptureFixture[str]
TWINS = Path(__file__).parents[2] / "sample_models" / "twins"


def test_facts(capsys: Capsys, folder: Path) -> None:
    mlp()
    before = listing(folder)
    ran = cli(capsys, "inspect", "m.onnx")
    assert (ran.code, ran.err) == (0, "")
    assert listing(folder) == before
    lines = ran.out.splitlines()
    assert lines[0] == "m.onnx"
    for line in (
        "parameters          1.74 k in 6.95 kB",
        "MACs of one sample  1.66 k",
        "opset               17, IR version 9",
        "operators           Gemm\N{MULTIPLICATION SIGN}2, Relu\N{MULTIPLICATION SIGN}1",
        "quantized           nothing",
        "input   x     float  N x 16",
        "output  y     float  N x 10",
        "fc0    Gemm      16x64 float      1.09 k  4.35 kB  1.02 k",
    ):
        assert line in lines
    assert "would stop" not in ran.out


def test_layers_option(capsys: Capsys) -> None:
    mlp(sizes=(16, 64, 32, 24, 10))

    def shown(*argv: str) -> tuple[str, list[str]]:
        part = cli(capsys, "inspect", "m.onnx", *argv).out.split("\n\n")
        title = next(index for index, text in enumerate(part) if "layers" in text or "largest" in text)
        return part[title], [line.split()[0] for line in part[title + 1].splitlines()[2:]]

    assert shown() == ("All 4 layers", ["fc0", "fc1", "fc2", "fc3"])
    assert shown("--layers", "0") == ("All 4 layers", ["fc0", "fc1", "fc2", "fc3"])
    assert shown("--layers", "2") == ("The 2 largest of 4 layers", ["fc1", "fc0"])
    assert shown("--layers", "1") == ("The largest of 4 layers", ["fc1"])


@pytest.mark.parametrize(("mode", "scheme"), [("weights", "weight-only"), ("dynamic", "integer"), ("static", "qdq")])
def test_quantized(capsys: Capsys, mode: str, scheme: str) -> None:
    mlp()
    samples()
    assert quantize(capsys, "m.onnx", "--mode", mode, "--data", "d.npz").code == 0
    out = cli(capsys, "inspect", "m.int8.onnx").out
    line = next(line for line in out.splitlines() if line.startswith("quantized"))
    assert scheme in line.lower() and "integer weight" in line and "()" not in line
    assert "it is already quantized" in out.split("What would stop or limit quantization")[1]


def test_external_data_counts(capsys: Capsys) -> None:
    ran = cli(capsys, "inspect", TWINS / "digits_mlp_external.onnx")
    assert ran.code == 0
    size = next(line for line in ran.out.splitlines() if line.startswith("file size"))
    assert size.split()[2] == "205"


def test_subgraph(capsys: Capsys) -> None:
    ran = cli(capsys, "inspect", TWINS / "digits_mlp_if.onnx", "--json")
    layers = json.loads(ran.out)["facts"]["layers"]
    assert {"branch_product", "branch_add"} <= {layer["name"] for layer in layers}
    assert cli(capsys, "inspect", TWINS / "digits_mlp_if.onnx").code == 0


def test_dynamic_and_unknown_shapes(capsys: Capsys) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"], name="product")],
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", None, "width"]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    out = cli(capsys, "inspect", "m.onnx").out
    assert "batch x ? x width" in out
    assert "MACs of one sample  unknown" in out
    assert "note: the MACs of 1 layer is unknown" in out
    assert "it has no weights" in out


def test_blockers(capsys: Capsys) -> None:
    mlp(extra=[helper.make_node("Wobble", ["y"], ["z"], domain="com.example", name="wobble")])
    ran = cli(capsys, "inspect", "m.onnx")
    assert ran.code == 0
    assert "com.example 1" in ran.out
    section = " ".join(ran.out.split("What would stop or limit quantization")[1].split())
    assert "com.example:Wobble stops a custom operator" in section


def test_model_without_layers(capsys: Capsys) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    out = cli(capsys, "inspect", "m.onnx").out
    assert "No layers" in out and "scalar" in out
