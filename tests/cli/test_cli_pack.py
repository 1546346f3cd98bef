"""`modelkit pack` and `modelkit unpack` as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
from cli_models import QUICK, cli

SAMPLES = Path(__file__).parents[2] / "sample_models"
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def pruned(capsys: Capsys, folder: Path) -> Path:
    shutil.copy(SAMPLES / "digits_mlp.onnx", "m.onnx")
    assert cli(capsys, "prune", "m.onnx", "--sparsity", "0.9", "-q", *QUICK).code == 0
    return Path("m.pruned.onnx")


def test_pack_and_unpack(capsys: Capsys, pruned: Path) -> None:
    ran = cli(capsys, "pack", pruned, *QUICK)
    assert ran.code == 0, ran.err
    assert "exact" in ran.out and "smaller" in ran.out
    assert Path("m.pruned.packed.onnx").stat().st_size < pruned.stat().st_size / 3
    again = cli(capsys, "pack", "m.pruned.packed.onnx")
    assert (again.code, again.out) == (0, "")
    assert "m.pruned.packed.onnx is packed already (" in again.err and "nothing was done" in again.err
    back = cli(capsys, "unpack", "m.pruned.packed.onnx", "-o", "plain.onnx")
    assert back.code == 0 and "weights are plain again" in back.err
    assert not onnx.load("plain.onnx").functions


def test_json_says_what_each_weight_takes(capsys: Capsys, pruned: Path) -> None:
    ran = cli(capsys, "pack", pruned, "--effort", "size", "--json", *QUICK)
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    packed = [each for each in report["decisions"] if each["action"] == "packed"]
    assert packed and all(each["numbers"]["bytes"] < each["numbers"]["bytes_before"] for each in packed)
    assert all(each["numbers"]["entropy_bytes"] >= 0 for each in packed)


def test_pack_as_a_step_of_a_recipe(capsys: Capsys, pruned: Path) -> None:
    Path("r.yaml").write_text("steps:\n  - command: prune\n    sparsity: 0.95\n  - command: pack\n", encoding="utf-8")
    ran = cli(capsys, "run", "r.yaml", "m.onnx", "-o", "small.onnx", *QUICK)
    assert ran.code == 0, ran.err
    assert Path("small.onnx").stat().st_size < Path("m.onnx").stat().st_size / 4


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["pack", "m.onnx"], 2, "error: nothing to pack: no encoding takes less room"),
        (["pack", "m.pruned.onnx", "--effort", "most"], 2, "effort"),
        (["pack", "m.pruned.onnx", "--min-ratio", "1000x", *QUICK], 1, "nothing that was tried is inside the budget"),
        (["pack", "m.pruned.onnx", "-o", "m.pruned.onnx"], 2, "error: "),
        (["pack", "gone.onnx"], 2, "error: 'gone.onnx' does not exist"),
        (["unpack", "m.pruned.onnx"], 2, "error: 'm.pruned.onnx' has no packed weights"),
        (["unpack", "m.pruned.onnx", "-o", "m.onnx"], 2, "error: "),
        (["prune", "m.onnx", "--sparsity", "0.5", "--pack", "tight"], 2, "pack"),
    ],
)
def test_what_is_wrong(capsys: Capsys, pruned: Path, argv: list[str], code: int, message: str) -> None:
    ran = cli(capsys, *argv)
    assert ran.code == code, ran.err
    assert message in ran.err and "hint: " in ran.err
