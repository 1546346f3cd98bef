"""--junit and --github: what continuous integration is told, however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_models import QUICK, cli, mlp, quantize, samples
from lxml import etree

Capsys = pytest.CaptureFixture[str]
SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parents[1] / "report" / "junit.xsd"))


def outcomes(path: str = "j.xml") -> dict[str, str]:
    """For each case of a valid JUnit file, its outcome and message."""
    root = etree.parse(path).getroot()
    SCHEMA.assertValid(root)
    found = {}
    for case in root.iter("testcase"):
        told = [f"{child.tag}: {child.get('message')}" for child in case]
        found[case.get("name")] = told[0] if told else "passed"
    return found


@pytest.fixture
def summary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The step summary of a made-up GitHub Actions."""
    path = folder / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(folder))
    return path


def test_nothing_without_a_flag(capsys: Capsys, summary: Path) -> None:
    mlp()
    ran = quantize(capsys, "m.onnx")
    assert ran.code == 0 and "::" not in ran.err + ran.out
    assert not summary.exists()


def test_a_run_that_is_done(capsys: Capsys, summary: Path) -> None:
    mlp()
    samples()
    argv = ("--data", "d.npz", "--min-ratio", "1.5x", "--max-drop", "50%", "--junit", "out/j.xml", "--github")
    ran = quantize(capsys, "m.onnx", *argv)
    assert ran.code == 0, ran.err
    assert outcomes("out/j.xml") == dict.fromkeys(
        ("artifact", "clean-up", "drop in accuracy", "smaller by"), "passed"
    )
    assert "::error" not in ran.err and "::warning" not in ran.err
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("\n## modelkit quantize: 4 checks: 4 passed\n")
    assert "| file size |" in text and "## Decisions" not in text


def test_a_budget_that_is_missed(capsys: Capsys, summary: Path) -> None:
    mlp()
    ran = quantize(capsys, "m.onnx", "--min-ratio", "30x", "--junit", "j.xml", "--github", "--json")
    assert ran.code == 1 and ran.out.startswith("{")
    found = outcomes()
    assert found["artifact"].startswith("failure: only ") and found["smaller by"].startswith("failure: smaller by ")
    assert found["clean-up"] == "passed"
    lines = ran.err.splitlines()
    opening = lines[0].removeprefix("::stop-commands::")
    closing = lines.index(f"::{opening}::")
    assert all(line.startswith("::error file=m.onnx,title=modelkit quantize%3A ") for line in lines[closing + 1 :])
    assert len(lines) == closing + 3
    assert "30.00x" in summary.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["quantize", "none.onnx"], 2, "'none.onnx' does not exist"),
        (["quantize", "m.onnx", "--bits", "9"], 2, "what the options give has 1 problem"),
        (["prune", "m.onnx", "--sparsity", "2"], 2, "what the options give has 1 problem"),
        (["evaluate", "bad.onnx", *QUICK], 2, "'bad.onnx' is empty"),
        (["compare", "m.onnx", "bad.onnx", *QUICK], 2, "'bad.onnx' is empty"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_an_error_is_told_too(
    capsys: Capsys, summary: Path, folder: Path, argv: list[str], code: int, said: str
) -> None:
    mlp()
    (folder / "bad.onnx").write_bytes(b"")
    ran = cli(capsys, *argv, "--junit", "j.xml", "--github")
    assert ran.code == code
    assert outcomes() == {argv[0]: f"error: {said}"}
    assert ran.err.splitlines()[-1].endswith(said)
    assert said in summary.read_text(encoding="utf-8").replace("&#", "")


def test_a_measurement_without_gates_is_one_case(capsys: Capsys) -> None:
    mlp()
    assert cli(capsys, "evaluate", "m.onnx", "--junit", "j.xml", *QUICK).code == 0
    assert outcomes() == {"evaluate": "passed"}


def test_gates_of_a_comparison(capsys: Capsys, summary: Path) -> None:
    mlp()
    mlp("n.onnx", sizes=(16, 32, 10))
    ran = cli(capsys, "compare", "m.onnx", "n.onnx", "--min-ratio", "9x", "--junit", "j.xml", "--github", *QUICK)
    assert ran.code == 1
    assert {name: told.split(":")[0] for name, told in outcomes().items()} == {
        "smaller by": "failure",
        "broken outputs": "passed",
    }
    assert "::error file=n.onnx,title=modelkit compare%3A smaller by::n.onnx: smaller by " in ran.err
    assert "## Gates: `n.onnx`" in summary.read_text(encoding="utf-8")


def test_a_folder_has_a_case_for_each_model(capsys: Capsys, summary: Path, folder: Path) -> None:
    (folder / "models" / "sub").mkdir(parents=True)
    mlp("models/a.onnx")
    mlp("models/sub/b.onnx", sizes=(16, 8, 10))
    (folder / "models" / "c.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    argv = ["quantize", "models", "-o", "out", "--min-ratio", "1.5x", "--mode", "weights", *QUICK]
    ran = cli(capsys, *argv, "--junit", "j.xml", "--github")
    assert ran.code == 3, ran.err
    found = outcomes()
    assert found["a.onnx"] == "passed"
    assert found["sub/b.onnx"].startswith("failure: ")
    assert found["c.onnx"] == "error: 'models/c.onnx' is a Git LFS pointer, not the model itself"
    assert "::error file=models/c.onnx,title=modelkit quantize%3A c.onnx::" in ran.err
    assert "3 models: " in summary.read_text(encoding="utf-8")
    again = cli(capsys, *argv, "--resume", "--junit", "j.xml")
    assert again.code == 3
    assert outcomes()["a.onnx"] == "skipped: done by an earlier run, and nothing has changed"
    assert outcomes()["sub/b.onnx"].startswith("failure: ")


def test_names_of_a_model_cannot_command_github(capsys: Capsys, summary: Path, folder: Path) -> None:
    mlp("::warning::pwned.onnx", node="::set-output name=x::{}", weight="::error::w{}")
    ran = cli(capsys, "inspect", "::warning::pwned.onnx")
    assert ran.code == 0
    ran = quantize(capsys, "::warning::pwned.onnx", "--explain", "--junit", "::error::.xml", "--github")
    lines = ran.err.splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    after = lines[lines.index(f"::{token}::") + 1 :]
    assert ran.code == 0 and after == []
    assert outcomes("::error::.xml")["artifact"] == "passed"


def test_outside_of_github(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    mlp()
    ran = cli(capsys, "evaluate", "m.onnx", "--github", *QUICK)
    assert ran.code == 0
    assert "note: GITHUB_STEP_SUMMARY is not set, so there is no step summary" in ran.err


@pytest.mark.parametrize("target", ["m.onnx", "link.xml"])
def test_an_input_is_not_overwritten(capsys: Capsys, folder: Path, target: str) -> None:
    mlp()
    (folder / "link.xml").symlink_to("m.onnx")
    content = Path("m.onnx").read_bytes()
    ran = quantize(capsys, "m.onnx", "--junit", target)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: --junit would overwrite '{target}', which holds no test results")
    assert Path("m.onnx").read_bytes() == content and not Path("m.int8.onnx").exists()


def test_a_face_that_cannot_be_shown_hides_no_result(
    capsys: Capsys, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "none" / "s.md"))
    ran = quantize(capsys, "m.onnx", "--github")
    assert ran.code == 5 and "error: cannot write the step summary" in ran.err
    assert Path("m.int8.onnx").exists()
    ran = quantize(capsys, "m.onnx", "--force", "--min-ratio", "30", "--github")
    assert ran.code == 1 and "error: cannot write the step summary" in ran.err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_run_that_is_ended_from_outside(folder: Path) -> None:
    mlp()
    argv = ["quantize", "m.onnx", "--set", "measure.seconds=60", "--junit", "j.xml", "--verbose"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-m", "modelkit", *argv], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "cleaning" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert outcomes() == {"quantize": "error: the run was ended from outside"}
