"""What a run must say: numbers that are none, files that it did not write, data that serves twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_models import QUICK, cli, mlp, quantize, samples
from onnx import TensorProto, helper, numpy_helper

Capsys = pytest.CaptureFixture[str]


def spoiled(name: str, value: float) -> None:
    """Write the usual net with one bad number in one of its tensors."""
    model = onnx.load(mlp())
    tensor = next(each for each in model.graph.initializer if each.name == name)
    numbers = numpy_helper.to_array(tensor).copy()
    numbers.flat[3] = value
    tensor.CopyFrom(numpy_helper.from_array(numbers, name))
    onnx.save(model, "m.onnx")


@pytest.mark.parametrize(
    "argv",
    [[], ["--mode", "weights"], ["--mode", "dynamic"], ["--mode", "static"], ["--bits", "16"], ["--bits", "4"]],
)
@pytest.mark.parametrize(("name", "value"), [("w0", np.nan), ("b1", np.inf)])
def test_a_weight_that_is_no_number_is_named(capsys: Capsys, folder: Path, argv: list[str], name, value) -> None:
    spoiled(name, value)
    samples()
    ran = quantize(capsys, "m.onnx", "--data", "d.npz", *argv)
    assert ran.code == 2 and f"the tensor '{name}' holds infinite values or NaN" in ran.err
    assert "Warning" not in ran.err and not list(folder.glob("*.report.*"))


def test_outputs_that_are_no_numbers_are_no_success(capsys: Capsys, folder: Path) -> None:
    model = onnx.load(mlp())
    model.graph.node[-1].output[0] = "z"
    for op, read, written in (("Exp", "z", "e"), ("Neg", "e", "n"), ("Sqrt", "n", "y")):
        model.graph.node.append(helper.make_node(op, [read], [written]))
    onnx.save(model, "m.onnx")
    ran = quantize(capsys, "m.onnx", "--mode", "weights", "--json")
    found = json.loads(ran.out)
    assert found["fidelity"]["exact"] is False and found["fidelity"]["finite_share"] == 0
    assert any("all numbers in an output of the original are infinite or NaN" in note for note in found["notes"])
    ran = cli(capsys, "evaluate", "m.onnx", "m.int8.onnx", *QUICK)
    assert ran.code == 0 and "nothing could be compared" in " ".join(ran.out.split()) and "exact" not in ran.out


def test_an_artifact_of_an_earlier_run_is_told_apart(capsys: Capsys, folder: Path) -> None:
    mlp()
    assert quantize(capsys, "m.onnx").code == 0
    ran = quantize(capsys, "m.onnx", "--force", "--min-ratio", "30")
    said = "the m.int8.onnx that is there comes from an earlier run"
    assert ran.code == 1 and said in ran.err
    report = json.loads((folder / "m.int8.report.json").read_text())
    assert any(said in note for note in report["notes"])
    assert said in (folder / "m.int8.report.md").read_text()
    # What was measured is called what it would have been called, not after the place where it was tried.
    assert report["after"]["file"]["name"] == "m.int8.onnx"


@pytest.mark.parametrize("other", ["d.npz", "./d.npz", "link.npz"])
def test_data_that_was_worked_with_is_no_test(capsys: Capsys, folder: Path, other: str) -> None:
    mlp()
    samples()
    (folder / "link.npz").symlink_to("d.npz")
    ran = quantize(capsys, "m.onnx", "--data", "d.npz", "--test", other)
    assert ran.code == 2 and "named both to work with and to test on" in ran.err and "hint:" in ran.err


def test_evaluate_tells_its_options_and_where_they_came_from(capsys: Capsys, folder: Path) -> None:
    mlp()
    ran = cli(capsys, "evaluate", "m.onnx", "--seconds", "0.001", "--set", "seed=3", "--json")
    found = json.loads(ran.out)
    assert found["config"]["measure"]["seconds"] == 0.001 and found["config"]["seed"] == 3
    assert found["origins"]["measure.seconds"] == "--seconds"


def test_control_characters_in_a_producers_name(capsys: Capsys, folder: Path) -> None:
    model = onnx.load(mlp())
    model.producer_name = "tool\x07\x08"
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.save(model, "m.onnx")
    assert cli(capsys, "inspect", "m.onnx").code == 0


def test_a_mask_may_hold_minus_infinity(capsys: Capsys, folder: Path) -> None:
    """Scores of attention, a constant mask, Softmax: minus infinity is what hides a place."""
    rng = np.random.default_rng(0)
    mask = np.triu(np.full((1, 8, 8), -np.inf, "f4"), 1)
    constants = {"w": rng.standard_normal((64, 64)).astype("f4") / 8, "mask": mask}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"]),
        helper.make_node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Add", ["s", "mask"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    assert quantize(capsys, "m.onnx", "--mode", "weights").code == 0


def test_large_models_are_timed_one_by_one(capsys: Capsys, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate against the original by itself: what is loaded at once stays bounded."""
    from modelkit.transform import bench

    loaded: list[int] = []
    compare = bench.compare_fresh

    def watched(factories, **more):
        loaded.append(len(factories))
        return compare(factories, **more)

    monkeypatch.setattr(bench, "_LARGE_BYTES", 0)
    monkeypatch.setattr(bench, "compare_fresh", watched)
    mlp()
    ran = quantize(capsys, "m.onnx", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0 and loaded == [2] * len([c for c in found["candidates"] if c["latency"]])
