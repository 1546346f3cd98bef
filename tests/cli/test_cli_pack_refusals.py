"""What `modelkit pack` and its kin refuse, with one line that names the thing, before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_models import QUICK, cli
from onnx import TensorProto, helper, numpy_helper

from modelkit.graph.save import INLINE_LIMIT_BYTES
from modelkit.pack import proven

SAMPLES = Path(__file__).parents[2] / "sample_models"
Capsys = pytest.CaptureFixture[str]


def sparse_product(path: str, *, opset: int = 18, also: list[onnx.NodeProto] | None = None, role: str = "") -> None:
    """A product with a weight that is mostly zero, and what else is asked for."""
    weight = np.zeros((64, 64), np.float32)
    weight[::7, ::5] = 1.5
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product"), *(also or [])]
    inputs = [value("x", TensorProto.FLOAT, [1, 64])]
    outputs = [value(nodes[-1].output[0], TensorProto.FLOAT, [1, 64])]
    if role == "output":
        outputs.append(value("w", TensorProto.FLOAT, [64, 64]))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_an_operator_with_no_way_up_is_named(capsys: Capsys, folder: Path) -> None:
    hard = helper.make_node("Hardmax", ["y"], ["z"], axis=0, name="hard")
    sparse_product("m.onnx", opset=11, also=[hard])
    ran = cli(capsys, "pack", "m.onnx", *QUICK)
    assert ran.code == 2, ran.err
    assert "the Hardmax node 'hard' means something else from opset 13 on" in ran.err
    assert "hint: export the model with opset 18 or newer" in ran.err
    assert [each.name for each in Path().iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("role", "reason"),
    [
        ("output", "it is an output of the model"),
        ("foreign", "com.microsoft:FusedMatMul may need it while the model is being loaded"),
    ],
)
def test_a_weight_that_must_stay_an_initializer(capsys: Capsys, folder: Path, role: str, reason: str) -> None:
    fused = helper.make_node("FusedMatMul", ["y", "w"], ["z"], domain="com.microsoft", alpha=0.5)
    sparse_product("m.onnx", also=[fused] if role == "foreign" else None, role=role)
    ran = cli(capsys, "pack", "m.onnx", *QUICK)
    assert ran.code == 2, ran.err
    assert f"error: nothing to pack: {reason}" in ran.err and "hint: " in ran.err
    assert [each.name for each in Path().iterdir()] == ["m.onnx"]


def test_models_that_no_one_file_can_hold(capsys: Capsys, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert INLINE_LIMIT_BYTES < 2**31
    sparse_product("m.onnx")
    monkeypatch.setattr(proven, "INLINE_LIMIT_BYTES", 1000)
    ran = cli(capsys, "pack", "m.onnx", *QUICK)
    assert ran.code == 2, ran.err
    assert "error: models of more than 1.9 GB cannot be packed" in ran.err and "hint: " in ran.err
    assert [each.name for each in Path().iterdir()] == ["m.onnx"]


def test_a_budget_that_compressing_cannot_meet(capsys: Capsys, folder: Path) -> None:
    shutil.copy(SAMPLES / "digits_mlp.onnx", "m.onnx")
    samples = ["--data", SAMPLES / "digits_mlp.calib.npz", "--test", SAMPLES / "digits_mlp.eval.npz"]
    given = ["--sparsity", "99%", "--values", "4", "--epochs", "0", "--set", "sharing.epochs=0", "--max-drop", "0.1%"]
    ran = cli(capsys, "compress", "m.onnx", *samples, *given, *QUICK)
    assert ran.code == 1, ran.err
    assert "nothing that was tried is inside the budget; the nearest, 99.00% zeros, 4 values: loses" in ran.err
    assert not Path("m.compressed.onnx").exists() and Path("m.compressed.missed.onnx").exists()
    report = json.loads(Path("m.compressed.report.json").read_text(encoding="utf-8"))
    assert report["status"] == "budget not met"
    assert report["after"]["file"]["bytes"] == Path("m.compressed.missed.onnx").stat().st_size


def _without_a_stream(proto: onnx.ModelProto) -> None:
    call = next(node for node in proto.graph.node if node.domain)
    gone = next(tensor for tensor in proto.graph.initializer if tensor.name == call.input[0])
    proto.graph.initializer.remove(gone)


def _with_another_count(proto: onnx.ModelProto) -> None:
    call = next(node for node in proto.graph.node if node.domain)
    next(each for each in call.attribute if each.name == "entries").ints[0] += 1000


def _with_another_shape(proto: onnx.ModelProto) -> None:
    call = next(node for node in proto.graph.node if node.domain)
    next(each for each in call.attribute if each.name == "shape").ints[0] //= 2


def _with_another_body(proto: onnx.ModelProto) -> None:
    del proto.functions[-1].node[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_a_stream, "the packed weight 'w' is damaged: 'w.g"),
        (_with_another_count, "the packed weight 'w' is damaged: "),
        (_with_another_shape, "the packed weight 'w' is damaged: an entry stands at "),
        (_with_another_body, "needs 'o', which nothing in it makes"),
    ],
)
@pytest.mark.parametrize("command", ["pack", "unpack", "quantize"])
def test_a_file_that_was_changed_by_hand(
    capsys: Capsys, folder: Path, change: Callable[[onnx.ModelProto], None], message: str, command: str
) -> None:
    sparse_product("m.onnx")
    assert cli(capsys, "pack", "m.onnx", "-q", *QUICK).code == 0
    proto = onnx.load("m.packed.onnx")
    change(proto)
    onnx.save(proto, "changed.onnx")
    before = sorted(each.name for each in Path().iterdir())
    ran = cli(capsys, command, "changed.onnx")
    assert ran.code == 2, ran.err
    assert ran.err.startswith("error: ") and message in ran.err
    assert sorted(each.name for each in Path().iterdir()) == before
