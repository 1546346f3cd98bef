"""`modelkit evaluate`: models side by side, or a refusal that says what differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_models import QUICK, Ran, cli, conv, listing, mlp, quantize, samples
from onnx import TensorProto

Capsys = pytest.CaptureFixture[str]
SAMPLES = Path(__file__).parents[2] / "sample_models"


def evaluate(capsys: Capsys, *argv: object) -> Ran:
    return cli(capsys, "evaluate", *argv, *QUICK)


def test_one_model(capsys: Capsys, folder: Path) -> None:
    mlp()
    samples()
    before = listing(folder)
    ran = evaluate(capsys, "m.onnx", "--data", "d.npz")
    assert ran.code == 0 and listing(folder) == before
    first = [line.split("  ")[0] for line in ran.out.splitlines()]
    assert first[0] == "m.onnx"
    for row in ("file size", "parameters", "accuracy", "log-loss", "latency, median", "latency, p95"):
        assert row in first
    assert "speed" not in first and "same prediction" not in first
    without = evaluate(capsys, "m.onnx")
    assert "accuracy" not in without.out
    assert "note: without data, latency was measured on made-up inputs" in without.out


def test_two_models(capsys: Capsys) -> None:
    mlp()
    samples()
    assert quantize(capsys, "m.onnx").code == 0
    ran = evaluate(capsys, "m.onnx", "m.int8.onnx", "--data", "d.npz")
    assert ran.code == 0
    head = ran.out.splitlines()[2]
    assert head.split() == ["m.onnx", "m.int8.onnx"]
    rows = {line.split("  ")[0]: line.split()[-1] for line in ran.out.splitlines() if "  " in line}
    assert {"same prediction", "output SQNR", "speed", "95 % interval"} <= set(rows)


def test_three_models(capsys: Capsys) -> None:
    mlp()
    mlp("n.onnx", sizes=(16, 32, 10))
    mlp("o.onnx", sizes=(16, 8, 8, 10))
    ran = evaluate(capsys, "m.onnx", "n.onnx", "o.onnx")
    assert ran.code == 0 and ran.out.splitlines()[2].split() == ["m.onnx", "n.onnx", "o.onnx"]


def test_a_copy_agrees_exactly(capsys: Capsys, folder: Path) -> None:
    mlp()
    (folder / "n.onnx").write_bytes((folder / "m.onnx").read_bytes())
    out = evaluate(capsys, "m.onnx", "n.onnx").out
    assert "exact" in out and "100.00 %" in out


def test_models_of_one_name_are_told_apart(capsys: Capsys, folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        mlp(f"{name}/m.onnx", sizes=(16, 32 if name == "a" else 64, 10))
    ran = evaluate(capsys, "a/m.onnx", "b/m.onnx")
    assert ran.out.splitlines()[2].split() == ["a/m.onnx", "b/m.onnx"]


def test_fixed_and_dynamic_batch(capsys: Capsys) -> None:
    mlp()
    mlp("one.onnx", batch=1)
    samples()
    for names in (("m.onnx", "one.onnx"), ("one.onnx", "m.onnx")):
        ran = evaluate(capsys, *names, "--data", "d.npz", "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["models"][1]["fidelity"]["exact"] is True


def test_float16_beside_float32(capsys: Capsys) -> None:
    mlp()
    mlp("half.onnx", dtype=TensorProto.FLOAT16)
    samples()
    ran = evaluate(capsys, "m.onnx", "half.onnx", "--data", "d.npz", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["models"][1]["fidelity"]["sqnr_db"] > 40


def test_same_model_twice(capsys: Capsys, folder: Path) -> None:
    mlp()
    (folder / "link.onnx").symlink_to("m.onnx")
    for other in ("m.onnx", "./m.onnx", "link.onnx"):
        ran = evaluate(capsys, "m.onnx", other)
        assert ran.err.splitlines() == [
            "error: the same model is named twice",
            "hint: its figures would be the same but for noise",
        ]
        assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"inputs": "z"}, ["'n.onnx' has no input 'x'", "'n.onnx' also wants the input 'z'"]),
        ({"sizes": (17, 10)}, ["the input 'x' of 'n.onnx' is float32 [N, 17], not float32 [N, 16]"]),
        ({"dtype": TensorProto.INT64}, ["the input 'x' of 'n.onnx' is int64"]),
        ({"sizes": (16, 11)}, ["the output 'y' of 'n.onnx' is float32 [N, 11], not float32 [N, 10]"]),
    ],
)
def test_models_that_cannot_be_compared(
    capsys: Capsys, folder: Path, other: dict[str, object], said: list[str]
) -> None:
    mlp()
    if other.get("dtype") == TensorProto.INT64:
        from onnx import helper, save

        graph = helper.make_graph(
            [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 16])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        )
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "n.onnx")
    else:
        mlp("n.onnx", **other)
    before = listing(folder)
    # Before any work: the data, which is not there, was not looked for.
    ran = evaluate(capsys, "m.onnx", "n.onnx", "--data", "none.npz")
    first, hint = ran.err.splitlines()
    assert first.startswith("error: the models do not ")
    for part in said:
        assert part in first
    assert hint == "hint: modelkit inspect MODEL shows the inputs and outputs of each"
    assert (ran.code, ran.out) == (2, "") and listing(folder) == before


def test_every_difference_is_told(capsys: Capsys) -> None:
    mlp()
    conv()
    mlp("n.onnx", sizes=(12, 10))
    ran = evaluate(capsys, "m.onnx", "conv.onnx", "n.onnx")
    assert ran.code == 2
    for part in ("'conv.onnx' has no input 'x'", "'conv.onnx' also wants the input 'image'", "'n.onnx' is float32"):
        assert part in ran.err.splitlines()[0]


def test_outputs_of_other_names_are_compared_by_place(capsys: Capsys) -> None:
    mlp()
    mlp("n.onnx", outputs="scores")
    ran = evaluate(capsys, "m.onnx", "n.onnx", "--json")
    assert ran.code == 0 and json.loads(ran.out)["models"][1]["fidelity"]["exact"] is True


def test_a_model_that_fails_while_running(capsys: Capsys) -> None:
    """A batch that the graph does not take although it says so is no defect of modelkit."""
    from onnx import helper, numpy_helper, save

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(np.array([1, 16]), "shape")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    samples()
    for argv in ((), ("--data", "d.npz")):
        ran = evaluate(capsys, "m.onnx", *argv)
        if ran.code:
            assert (ran.code, ran.out) == (5, "")
            assert ran.err.startswith("error: onnxruntime failed while running 'm.onnx'")


def test_options(capsys: Capsys, folder: Path) -> None:
    mlp()
    (folder / "e.yaml").write_text("measure:\n  batch: 4\nsynthetic:\n  samples: 8\n")
    argv = ("m.onnx", "--config", "e.yaml", "--seconds", "0.02", "--threads", "1", "--json")
    ran = cli(capsys, "evaluate", *argv)
    assert ran.code == 0 and json.loads(ran.out)["data"]["count"] == 8
    ran = cli(capsys, "evaluate", "m.onnx", "--seconds", "soon", "--batch", "0")
    assert ran.code == 2
    assert ran.err.splitlines()[0] == "error: what the options give has 2 problems"
    assert ran.err.splitlines()[-1] == "hint: modelkit schema evaluate lists every key and what it takes"


def test_a_trained_model(capsys: Capsys) -> None:
    ran = evaluate(capsys, SAMPLES / "digits_mlp.onnx", "--data", SAMPLES / "digits_mlp.eval.npz", "--json")
    assert json.loads(ran.out)["models"][0]["quality"]["accuracy"] > 0.95
