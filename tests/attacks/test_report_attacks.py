"""Reports from strangers: verifying reads nothing that they name elsewhere, and runs nothing that they say."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit import api
from modelkit.cli.app import run
from modelkit.errors import UnsafeError, UsageError
from modelkit.report.stored import MOST_BYTES, read_report

Edit = Callable[[Callable[[dict[str, Any]], object]], Path]


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its data, its artifact and the report."""
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    weights = numpy_helper.from_array(random.standard_normal((32, 10)).astype("f4"), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx")
    np.savez(folder / "d.npz", x=random.standard_normal((64, 32)).astype("f4"), labels=random.integers(0, 10, 64))
    config = {"mode": "weights", "measure.seconds": 0.001, "objective": "size"}
    api.quantize(folder / "m.onnx", data=folder / "d.npz", config=config)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    inside = tmp_path / "inside"
    shutil.copytree(made, inside)
    shutil.copytree(made, tmp_path / "outside")
    monkeypatch.chdir(inside)
    return inside


@pytest.fixture
def edit(folder: Path) -> Edit:
    """Change the report, and return its path."""

    def change(what: Callable[[dict[str, Any]], object]) -> Path:
        path = folder / "m.int8.report.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        what(found)
        path.write_text(json.dumps(found), encoding="utf-8")
        return path

    return change


PLACES = {
    "original": lambda r, name: r["before"]["file"].update(name=name),
    "artifact": lambda r, name: r["after"]["file"].update(name=name),
    "data": lambda r, name: [each.update(path=name) for each in r["data"].values()],
}
NAMES = [
    "../outside/m.onnx",
    "/etc/passwd",
    "..",
    ".",
    "sub/m.onnx",
    "..\\outside\\m.onnx",
    "C:m.onnx",
    "m.onnx\0.txt",
    "m.onnx/",
    "//host/share/m.onnx",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", PLACES)
def test_a_report_leads_nowhere_else(edit: Edit, place: str, name: str) -> None:
    path = edit(lambda r: PLACES[place](r, name))
    with pytest.raises(UnsafeError, match="which is no plain file name"):
        api.verify(path, latency=False)


@pytest.mark.parametrize("place", PLACES)
def test_a_link_beside_a_report_leads_nowhere_else(folder: Path, edit: Edit, place: str) -> None:
    name = "d.npz" if place == "data" else "m.onnx"
    (folder / "link").symlink_to(folder.parent / "outside" / name)
    path = edit(lambda r: PLACES[place](r, "link"))
    with pytest.raises(UnsafeError, match="'link' beside the report is a link that leads out of its folder"):
        api.verify(path, latency=False)


@pytest.mark.parametrize("name", ["../outside/d.npz", "/etc/passwd", "a\\..\\b", ""])
def test_external_data_stays_inside(edit: Edit, name: str) -> None:
    path = edit(lambda r: r["after"]["file"].update(external={name: "0" * 64}))
    with pytest.raises(UnsafeError):
        api.verify(path, latency=False)


def test_what_the_user_names_may_lie_anywhere(folder: Path, edit: Edit) -> None:
    path = edit(lambda r: [PLACES[place](r, "../x") for place in PLACES])
    away = folder.parent / "outside"
    found = api.verify(path, model=away / "m.onnx", artifact=away / "m.int8.onnx", data=away / "d.npz", latency=False)
    assert {check.outcome for check in found.checks if "latency" not in check.reason} == {"agrees"}


@pytest.mark.parametrize("place", ["original", "data"])
def test_no_pickle_is_loaded_through_a_report(folder: Path, edit: Edit, place: str) -> None:
    from modelkit.files import file_record

    (folder / "p.bin").write_bytes(pickle.dumps(Bomb()))

    def change(report: dict[str, Any]) -> None:
        PLACES[place](report, "p.bin")
        if place == "original":
            report["before"]["file"] = file_record(folder / "p.bin")

    path = edit(change)
    if place == "data":
        with pytest.raises(UnsafeError, match="is a pickle, which runs code"):
            api.verify(path, latency=False)
    else:
        found = api.verify(path, latency=False)
        assert any(note.startswith("the original was not run: ") for note in found.notes)
    assert not (folder / "pwned").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("place", ["original", "artifact"])
def test_a_pipe_is_not_waited_for(folder: Path, edit: Edit, place: str) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match="is not a regular file"):
        api.verify(edit(lambda r: PLACES[place](r, "pipe")), latency=False)
    os.mkfifo(folder / "report")
    with pytest.raises(UsageError, match="is not a regular file"):
        api.verify(folder / "report")


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no artifact": lambda r: r.pop("after"),
    "text for a number": lambda r: r["after"]["size"].update(file_bytes="many"),
    "a negative size": lambda r: r["after"]["size"].update(file_bytes=-1),
    "a huge number": lambda r: r["after"]["size"].update(file_bytes=10**400),
    "a short hash": lambda r: r["after"]["file"].update(sha256="abc"),
    "a hash in capitals": lambda r: r["after"]["file"].update(sha256="A" * 64),
    "a list for a name": lambda r: r["after"]["file"].update(name=["m"]),
    "a long name": lambda r: r["after"]["file"].update(name="n" * 100_000),
    "another role": lambda r: r["data"].update(other=r["data"]["test"]),
    "a time of nothing": lambda r: r["after"]["latency"].update(median_ms=0),
    "many metrics": lambda r: r["after"].update(quality={str(n): 1.0 for n in range(1000)}),
    "quality of text": lambda r: r["after"].update(quality={"accuracy": "good"}),
    "options of a list": lambda r: r.update(config=[]),
    "a null": lambda r: r.update(before=None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_report_is_one_clear_error(edit: Edit, name: str) -> None:
    path = edit(BROKEN[name])
    with pytest.raises(UsageError, match="is damaged: ") as refused:
        api.verify(path)
    assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\xff\xfe{}",
        b'{"schema": "modelkit.report/1"',
        b'{"schema": "modelkit.report/2"}',
        b'{"schema": ["modelkit.report/1"]}',
        b'{"schema": ' + b"9" * 5000 + b"}",
    ],
    ids=range(10),
)
def test_what_is_no_report(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        read_report(path)


def test_a_report_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # a hole: it takes no room on the disk
    assert path.stat().st_size > MOST_BYTES
    with pytest.raises(UsageError, match="is larger than 64 MiB"):
        read_report(path)


OPTIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown keys": lambda r: r["config"].update({"import": "os"}),
    "wrong types": lambda r: r["config"].update(seed="zero"),
    "an unknown command": lambda r: r.update(command="os.system"),
    "deep options": lambda r: r["config"].update(include=[[[[]]]]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_none_measure_nothing(edit: Edit, name: str) -> None:
    found = api.verify(edit(OPTIONS[name]), latency=False)
    assert [note.split(":")[0] for note in found.notes] == ["figures were not measured again"]
    assert {check.name for check in found.checks} >= {"artifact sha256", "artifact bytes"}


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["config"]["synthetic"].update(samples=100_000, dims={"N": 1_000_000_000}),
        lambda r: r["config"]["synthetic"].update(dims={"N": -5}),
        lambda r: r["config"]["measure"].update(batch=65536, threads=1024, seconds=600.0),
        lambda r: r["config"]["measure"].update(provider="no such provider\x1b[31m"),
    ],
    ids=["samples", "negative", "batch", "provider"],
)
def test_options_take_no_machine_down(made: Path, edit: Edit, change: Callable[[dict[str, Any]], object]) -> None:
    found = api.verify(edit(change), seconds=0.001, tolerance=1000)
    assert found.checks[0].outcome == "agrees"


def test_what_a_report_says_stays_on_its_line(edit: Edit, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nasty = "x\x1b[2J\n::error::pwned\r\nerror: no"

    def change(report: dict[str, Any]) -> None:
        report.update(method=nasty)
        report["after"]["quality"] = {nasty: 0.5}
        report["machine"]["cpu"] = nasty

    path = edit(change)
    code = run(["verify", str(path), "--junit", "j.xml", "--github"])
    out, err = capsys.readouterr()
    assert code == 1
    assert "\x1b" not in out + err
    assert not any(line.startswith(("::error::", "error: no")) for line in (out + err).splitlines())
