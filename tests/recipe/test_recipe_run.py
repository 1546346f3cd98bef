"""A recipe on a real model: what each step gives, what is kept when it is killed, and what is not done again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelkit import api

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_models"
MODEL = SAMPLES / "fashion_cnn.onnx"
DATA, TEST = SAMPLES / "fashion_cnn.calib.npz", SAMPLES / "fashion_cnn.eval.npz"
RECIPE = """\
steps:
  - command: prune
    sparsity: 50%
    method: obs
    scope: layer
  - command: quantize
    mode: static
    activations: {range: minmax}
measure: {seconds: 0.05}
"""


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kitchen")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def argv(folder: Path, *more: str) -> list[str]:
    base = ["run", str(folder / "recipe.yaml"), str(MODEL), "-o", str(folder / "out" / "small.onnx")]
    return [sys.executable, "-m", "modelkit", *base, "--data", str(DATA), "--test", str(TEST), *more]


def run(folder: Path, *more: str, code: int = 0) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv(folder, "--json", *more), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stop(folder: Path, stage: str, how: signal.Signals, *more: str) -> tuple[int, str]:
    """Run until a stage is told, then end the process; returns its exit code and what it said after that."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(argv(folder, "-v", *more), env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if stage in line:
            process.send_signal(how)
            break
    else:
        pytest.fail(f"the run ended without saying '{stage}'")
    rest = process.stderr.read()
    return process.wait(), rest


def cached(report: dict[str, Any]) -> list[bool]:
    return [step["cached"] for step in report["steps"]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def accuracy(path: Path) -> float:
    with np.load(TEST) as found:
        labels = found["labels"]
        inputs = found[next(name for name in found.files if name != "labels")]
    session = onnxruntime.InferenceSession(path)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs.astype("f4")})
    return float((outputs.argmax(1) == labels).mean())


@pytest.fixture(scope="module")
def finished(kitchen: Path) -> dict[str, Any]:
    """The report of the run that followed a kill between its steps."""
    code, _ = stop(kitchen, "2/2 quantize", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not list((kitchen / "out").glob("small*"))
    return run(kitchen)


def test_after_a_kill_between_steps_the_first_is_not_done_again(finished: dict[str, Any]) -> None:
    assert finished["status"] == "done" and cached(finished) == [True, False]
    assert finished["steps"][0]["seconds"] > 0.1, "what it took when it was done"


def test_figures_are_those_of_the_files(finished: dict[str, Any], kitchen: Path) -> None:
    artifact = kitchen / "out" / "small.onnx"
    prune, quantize = finished["steps"]
    assert finished["before"]["quality"]["accuracy"] == pytest.approx(accuracy(MODEL))
    assert finished["after"]["quality"]["accuracy"] == pytest.approx(accuracy(artifact))
    assert quantize["quality"] == finished["after"]["quality"]
    assert finished["after"]["file"]["sha256"] == quantize["artifact"]["sha256"] == digest(artifact)
    assert quantize["input_sha256"] == prune["artifact"]["sha256"] and prune["input_sha256"] == digest(MODEL)
    between = kitchen / "out" / ".modelkit" / "cache" / f"{prune['key']}.onnx"
    assert digest(between) == prune["artifact"]["sha256"]
    assert prune["quality"]["accuracy"] == pytest.approx(accuracy(between))
    weights = prune["size"]["parameters"]
    assert prune["size"]["nonzero_parameters"] == pytest.approx(0.5 * weights, rel=0.02)
    assert quantize["size"]["file_bytes"] < 0.4 * prune["size"]["file_bytes"]
    assert all(step["speedup"]["value"] > 0 for step in finished["steps"])


def test_the_report_says_where_everything_came_from(finished: dict[str, Any], kitchen: Path) -> None:
    prune, quantize = finished["steps"]
    assert prune["config"]["sparsity"] == 0.5 and prune["origins"]["sparsity"] == "recipe.yaml:3"
    assert quantize["origins"]["measure.seconds"] == "recipe.yaml:9"
    assert {step["data"]["test"]["sha256"] for step in finished["steps"]} == {finished["data"]["test"]["sha256"]}
    assert {decision["numbers"]["step"] for decision in finished["decisions"]} == {1, 2}
    page = (kitchen / "out" / "small.report.md").read_text()
    assert f"| 2 quantize | {quantize['method']} |" in page and prune["artifact"]["sha256"] in page
    assert "## Options of step 2: quantize" in page
    assert json.loads((kitchen / "out" / "small.report.json").read_text()) == finished


def test_with_another_last_step_the_first_is_not_done_again(finished: dict[str, Any], kitchen: Path) -> None:
    found = run(kitchen, "--force", "--set", "steps.1.mode=weights")
    assert cached(found) == [True, False] and found["after"]["size"]["file_bytes"] < 140_000


def test_a_missed_budget_is_exit_1_and_only_a_report(finished: dict[str, Any], kitchen: Path) -> None:
    artifact = digest(kitchen / "out" / "small.onnx")
    # The chain of the first run again, whatever came between: all of it is there.
    found = run(kitchen, "--force", "--max-drop", "0", "--min-ratio", "3", "--max-size", "100kB", code=1)
    assert found["status"] == "budget not met" and cached(found) == [True, True]
    assert found["after"]["file"]["sha256"] == finished["after"]["file"]["sha256"]
    gates = {gate["name"]: gate["ok"] for gate in found["gates"]}
    assert gates["smaller by"] and not gates["file size"]
    assert any("earlier run" in note for note in found["notes"])
    assert digest(kitchen / "out" / "small.onnx") == artifact


def test_an_interrupt_says_what_is_kept(finished: dict[str, Any], kitchen: Path) -> None:
    before = sorted((kitchen / "out").iterdir())
    code, rest = stop(kitchen, "2/2 quantize", signal.SIGINT, "--force", "--set", "steps.1.correct_bias=false")
    assert code == 130
    assert "interrupted; 1 of 2 steps is in the cache, where the same command goes on" in rest
    assert sorted((kitchen / "out").iterdir()) == before


def test_as_a_library_on_external_data_without_a_cache(tmp_path: Path) -> None:
    report = api.run_recipe(
        {"steps": [{"command": "quantize", "mode": "weights"}], "measure": {"seconds": 0.01}},
        SAMPLES / "twins" / "digits_mlp_external.onnx",
        output=tmp_path / "x.onnx",
        cache=False,
    )
    assert report.steps[0]["cached"] is False and report.method == "quantize"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.onnx", "x.report.json", "x.report.md"]
