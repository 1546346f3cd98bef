"""`modelkit distill` as it is typed: options, folders, recipes, plans."""

import json
from pathlib import Path

import pytest
from distill_nets import DATA, MODEL, mlp

from modelkit.cli.app import run

QUICK = [
    word
    for key in ("measure.seconds=0.05", "training.threads=1", "training.learning_rate=0.003", "training.epochs=1")
    for word in ("--set", key)
]
Capsys = pytest.CaptureFixture[str]


def test_options_become_a_config_and_one_document(tmp_path: Path, capsys: Capsys) -> None:
    student, other = mlp(tmp_path / "small.onnx"), mlp(tmp_path / "other.onnx", seed=3)
    argv = ["distill", str(MODEL), "--data", str(DATA), "--student", str(student), "--teacher", str(other)]
    argv += ["--method", "dkd", "--epochs", "1", "--no-baseline", "--time", "5m", "--max-size", "500kB", "--json"]
    assert run([*argv, "-o", str(tmp_path / "s.onnx"), *QUICK[:6]]) == 0
    told = json.loads(capsys.readouterr().out)
    config = told["config"]
    assert (config["method"], config["time"], config["baseline"]) == ("dkd", 300.0, False)
    assert config["teachers"] == [str(other)] and config["budget"]["max_size"] == 500_000
    assert told["origins"]["time"] == "--time" and told["command"] == "distill"


def test_the_table_answers_whether_it_helped(tmp_path: Path, capsys: Capsys) -> None:
    argv = ["distill", str(MODEL), "--data", str(DATA), "--ratio", "25%", "-o", str(tmp_path / "s.onnx"), "--html"]
    assert run([*argv, *QUICK]) == 0
    table = capsys.readouterr().out
    assert "Did distillation help?" in table and "student alone" in table
    for ending in ("html", "md"):
        assert "Did distillation help?" in (tmp_path / f"s.report.{ending}").read_text()


def test_a_plan_trains_nothing_and_writes_nothing(tmp_path: Path, capsys: Capsys) -> None:
    argv = ["distill", str(MODEL), "--data", str(DATA), "--ratio", "25%", "-o", str(tmp_path / "s.onnx")]
    assert run([*argv, "--dry-run", "--json"]) == 0
    [candidate] = json.loads(capsys.readouterr().out)["candidates"]
    assert 0 < candidate["bytes"] < 0.4 * MODEL.stat().st_size
    assert not list(tmp_path.iterdir())


def test_every_model_of_a_folder_gets_a_student(tmp_path: Path, capsys: Capsys) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for number in (1, 2):
        mlp(models / f"{number}.onnx", (64, 96, 48, 10), seed=number)
    argv = ["distill", str(models), "--data", str(DATA), "--ratio", "50%", "--no-baseline", *QUICK]
    assert run([*argv, "-o", str(tmp_path / "small"), "--quiet"]) == 0
    made = sorted(path.name for path in (tmp_path / "small").glob("*.onnx"))
    assert made == ["1.distilled.onnx", "2.distilled.onnx"]
    capsys.readouterr()
    assert run([*argv, "-o", str(tmp_path / "small"), "--resume", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line.get("resumed", True) for line in lines)


def test_a_step_of_a_recipe(tmp_path: Path, capsys: Capsys) -> None:
    student = mlp(tmp_path / "small.onnx")
    recipe = tmp_path / "r.yaml"
    options = "training: {epochs: 1, learning_rate: 0.003, threads: 1}, baseline: false"
    recipe.write_text(
        f"steps:\n- {{command: distill, student: {student}, {options}}}\n- {{command: quantize, mode: weights}}\n"
    )
    argv = ["run", str(recipe), str(MODEL), "--data", str(DATA), "-o", str(tmp_path / "s.onnx"), "--json"]
    assert run([*argv, "--set", "measure.seconds=0.05"]) == 0
    first = json.loads(capsys.readouterr().out)["steps"][0]
    assert first["command"] == "distill" and not first["cached"]
    assert run([*argv, "--set", "measure.seconds=0.05", "--force"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][0]["cached"]
    # Another student is another result, though its file has the same name.
    mlp(student, (64, 16, 10))
    assert run([*argv, "--set", "measure.seconds=0.05", "--force"]) == 0
    again = json.loads(capsys.readouterr().out)["steps"][0]
    assert not again["cached"] and again["size"]["parameters"] < first["size"]["parameters"]


def test_errors_are_one_line_and_a_hint(tmp_path: Path, capsys: Capsys) -> None:
    for argv, code, error in (
        (["distill", str(MODEL)], 2, "a student learns from data"),
        (["distill", str(MODEL), "--data", str(DATA), "--student", "gone.onnx"], 2, "gone.onnx"),
        (["distill", str(MODEL), "--data", str(DATA), "--ratio", "1.5"], 2, "ratio"),
        (["distill", str(MODEL), "--data", str(DATA), "--max-size", "300B"], 1, "no student"),
    ):
        assert run([*argv, "-o", str(tmp_path / "s.onnx")]) == code
        lines = capsys.readouterr().err.splitlines()
        assert error in " ".join(lines) and any(line.startswith("error: ") for line in lines)
    assert not list(tmp_path.iterdir())
