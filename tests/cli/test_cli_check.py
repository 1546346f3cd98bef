"""`modelkit inspect --check`: whatever keeps a model from being used is a line and exit code 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from cli_models import cli, listing, mlp
from lxml import etree
from onnx import helper

Capsys = pytest.CaptureFixture[str]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"


def external(name: str = "m.onnx", data: str = "m.bin") -> Path:
    """Write a model whose weights lie in a file beside it."""
    model = onnx.load(mlp(name))
    onnx.save_model(model, name, save_as_external_data=True, location=data, size_threshold=0)
    return Path(data)


def edited(change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(mlp())
    change(model)
    Path("m.onnx").write_bytes(model.SerializeToString())


def custom(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def bad_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("no_such_thing", 1))


def pointer_as_data(folder: Path) -> None:
    external().write_bytes(LFS)


def data_elsewhere(folder: Path) -> None:
    external("m.onnx", "w.bin")
    model = onnx.load("m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../w.bin" if entry.key == "location" else entry.value
    Path("m.onnx").write_bytes(model.SerializeToString())


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer": (
        lambda folder: Path("m.onnx").write_bytes(LFS),
        "'m.onnx' is a Git LFS pointer, not the model itself",
    ),
    "empty": (lambda folder: Path("m.onnx").write_bytes(b""), "'m.onnx' is empty"),
    "page": (lambda folder: Path("m.onnx").write_bytes(b"<html>404</html>"), "'m.onnx' is a text file (html)"),
    "cut": (
        lambda folder: Path("m.onnx").write_bytes(mlp().read_bytes()[:3000]),
        "'m.onnx' is a truncated or damaged ONNX model",
    ),
    "no data": (lambda folder: external().unlink(), "the external data file 'm.bin' of 'm.onnx' is missing"),
    "data pointer": (pointer_as_data, "the external data file 'm.bin' of 'm.onnx' is a Git LFS pointer"),
    "data elsewhere": (data_elsewhere, "the location '../w.bin' leaves its folder by '..'"),
    "operator": (lambda folder: edited(custom), "the operator com.example:Gemm"),
    "attribute": (lambda folder: edited(bad_attribute), "'m.onnx' is not valid ONNX: "),
    "link": (lambda folder: Path("m.onnx").symlink_to("none"), "'m.onnx' is a link to 'none', which does not exist"),
    "pickle": (lambda folder: Path("m.onnx").write_bytes(b"\x80\x04cos\nsystem\n."), "'m.onnx'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_keeps_a_model_from_being_used(capsys: Capsys, folder: Path, name: str) -> None:
    make, said = BAD[name]
    make(folder)
    before = listing(folder)
    ran = cli(capsys, "inspect", "--check", "m.onnx")
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err and ran.err.startswith("error: "), ran.err
    assert listing(folder) == before


def test_good_models(capsys: Capsys) -> None:
    mlp()
    external("e.onnx", "e.bin")
    ran = cli(capsys, "inspect", "--check", "m.onnx", "e.onnx", "m.onnx")
    assert ran == (0, "", "m.onnx: ok\ne.onnx: ok\n")
    assert cli(capsys, "inspect", "--check", "m.onnx", "--quiet") == (0, "", "")


def test_a_line_for_each_problem(capsys: Capsys, folder: Path) -> None:
    mlp()
    edited(bad_attribute)
    (folder / "p.onnx").write_bytes(LFS)
    (folder / "sub").mkdir()
    mlp("sub/ok.onnx")
    ran = cli(capsys, "inspect", "--check", "m.onnx", "p.onnx", "sub/ok.onnx", "--junit", "j.xml")
    lines = ran.err.splitlines()
    assert ran.code == 1
    assert lines[:2] == ["sub/ok.onnx: ok", "error: 2 of 3 models cannot be used"]
    assert lines[-2] == "  'p.onnx' is a Git LFS pointer, not the model itself"
    assert lines[-1].startswith("hint: ") and "run git lfs pull" in lines[-1]
    cases = etree.parse("j.xml").getroot().iter("testcase")
    assert {case.get("name"): [child.tag for child in case] for case in cases} == {
        "m.onnx": ["failure"],
        "p.onnx": ["failure"],
        "sub/ok.onnx": [],
    }


def test_a_folder_is_looked_through(capsys: Capsys, folder: Path) -> None:
    (folder / "models" / "sub").mkdir(parents=True)
    mlp("models/a.onnx")
    mlp("models/sub/b")  # content decides
    (folder / "models" / "sub" / "c.onnx").write_bytes(LFS)
    (folder / "models" / "readme.txt").write_text("words")
    ran = cli(capsys, "inspect", "--check", "models", "--json")
    found = json.loads(ran.out)
    assert ran.code == 1 and found["schema"] == "modelkit.check/1"
    assert {each["model"]: len(each["problems"]) for each in found["models"]} == {
        "models/a.onnx": 0,
        "models/sub/b": 0,
        "models/sub/c.onnx": 1,
    }
    assert found["models"][2]["problems"][0]["hint"] == "run git lfs pull"
    assert cli(capsys, "inspect", "--check", "models", "--skip", "sub", "--quiet").code == 0


def test_weights_are_checked_as_such(capsys: Capsys, folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"w": np.zeros((2, 3), "f4")}, "w.safetensors")
    assert cli(capsys, "inspect", "--check", "w.safetensors").code == 0
    (folder / "cut.safetensors").write_bytes(Path("w.safetensors").read_bytes()[:-4])
    ran = cli(capsys, "inspect", "--check", "cut.safetensors")
    assert ran.code == 1 and "cut.safetensors" in ran.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--check", "none.onnx"], "error: 'none.onnx' does not exist"),
        (["--check", "m.onnx", "-o", "out"], "error: --output is not for --check"),
        (["--check", "m.onnx", "--workers", "2"], "error: --workers is not for --check"),
        (["m.onnx", "n.onnx"], "error: 2 models are named, and one is shown at a time"),
        (["--check"], "error: Missing argument 'MODEL'"),
    ],
    ids=str,
)
def test_misuse(capsys: Capsys, argv: list[str], said: str) -> None:
    mlp()
    mlp("n.onnx")
    ran = cli(capsys, "inspect", *argv)
    assert (ran.code, ran.out) == (2, "") and ran.err.startswith(said), ran.err


def test_hostile_names_stay_on_their_line(capsys: Capsys, folder: Path) -> None:
    name = "a\x1b[31m\nerror: b.onnx"
    (folder / name).write_bytes(LFS)
    ran = cli(capsys, "inspect", "--check", name)
    assert ran.code == 1
    assert ran.err.splitlines()[0] == r"error: 'a\x1b[31m\nerror: b.onnx' is a Git LFS pointer, not the model itself"
