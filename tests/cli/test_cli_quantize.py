"""`modelkit quantize`: plans, budgets, where each option's value came from, and what is left on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import yaml
from cli_models import QUICK, cli, conv, listing, mlp, quantize, samples

Capsys = pytest.CaptureFixture[str]
SAMPLES = Path(__file__).parents[2] / "sample_models"


def report(folder: Path, name: str = "m.int8.report.json") -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text()))


# --- plans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "argv"),
    [
        ("mlp", []),
        ("mlp", ["--bits", "4"]),
        ("mlp", ["--bits", "16"]),
        ("mlp", ["--data", "d.npz"]),
        ("mlp", ["--bits", "4", "--set", "weights.granularity=block", "--set", "weights.block_size=16"]),
        ("conv", []),
        ("conv", ["--data", "images.npz"]),
        ("external", []),
    ],
)
def test_dry_run_writes_nothing_and_predicts_sizes(capsys: Capsys, folder: Path, which: str, argv: list[str]) -> None:
    if which == "external":
        model = folder / "m.onnx"
        for part in ("", ".data"):
            source = SAMPLES / "twins" / f"digits_mlp_external.onnx{part}"
            (folder / source.name).write_bytes(source.read_bytes())
        (folder / "digits_mlp_external.onnx").rename(model)
    else:
        model = mlp() if which == "mlp" else conv("m.onnx")
    samples()
    random = np.random.default_rng(0)
    samples("images.npz", labels=False, image=random.standard_normal((32, 3, 12, 12)).astype("f4"))
    before = listing(folder)
    ran = quantize(capsys, model.name, *argv, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    plan = json.loads(ran.out)
    table = quantize(capsys, model.name, *argv, "--dry-run", "--explain")
    assert table.code == 0 and "nothing is written" in table.out and "What would be done, and why" in table.out
    assert "wrote" not in table.err
    assert listing(folder) == before

    ran = quantize(capsys, model.name, *argv, "--json", "--set", "budget.max_drop=100%")
    assert ran.code == 0, ran.err
    real = {entry["name"]: entry["size"].get("file_bytes") for entry in json.loads(ran.out)["candidates"]}
    assert plan["candidates"]
    for entry in plan["candidates"]:
        if entry["bytes"] is not None:
            assert entry["bytes"] == pytest.approx(real[entry["name"]], rel=0.05), entry["name"]
    assert plan["original_bytes"] == json.loads(ran.out)["before"]["size"]["file_bytes"]
    assert Path(plan["output"]).exists()


def test_dry_run_refuses_what_a_run_would_refuse(capsys: Capsys, folder: Path) -> None:
    mlp()
    (folder / "m.int8.onnx").write_text("mine")
    for argv in (["m.onnx"], ["none.onnx"], ["m.onnx", "--mode", "static", "-o", "o.onnx"]):
        assert quantize(capsys, *argv, "--dry-run").err.splitlines() == quantize(capsys, *argv).err.splitlines()


# --- what is written ------------------------------------------------------------------------------------------


def test_artifact_and_reports_and_nothing_else(capsys: Capsys, folder: Path) -> None:
    mlp()
    ran = quantize(capsys, "m.onnx")
    assert ran.code == 0
    assert ran.err.splitlines()[-1] == "wrote m.int8.onnx and its report"
    assert sorted(listing(folder)) == ["m.int8.onnx", "m.int8.report.json", "m.int8.report.md", "m.onnx"]
    assert (folder / "m.int8.onnx").stat().st_size < (folder / "m.onnx").stat().st_size
    ort.InferenceSession("m.int8.onnx", providers=["CPUExecutionProvider"])


def test_output_option_makes_folders(capsys: Capsys, folder: Path) -> None:
    mlp()
    assert quantize(capsys, "m.onnx", "-o", "out/deep/small.onnx").code == 0
    assert sorted(p.name for p in (folder / "out/deep").iterdir()) == [
        "small.onnx",
        "small.report.json",
        "small.report.md",
    ]


def test_force_replaces(capsys: Capsys, folder: Path) -> None:
    mlp()
    (folder / "m.int8.onnx").write_text("old")
    assert quantize(capsys, "m.onnx", "--force").code == 0
    assert (folder / "m.int8.onnx").read_bytes() != b"old"


def test_same_bytes_every_time(capsys: Capsys, folder: Path) -> None:
    mlp()
    samples()
    found = set()
    for name in ("a", "b"):
        assert quantize(capsys, "m.onnx", "--mode", "static", "--data", "d.npz", "-o", f"{name}.onnx").code == 0
        found.add((folder / f"{name}.onnx").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ([], "m.int8.onnx"),
        (["--bits", "4"], "m.int4.onnx"),
        (["--bits", "16"], "m.16bit.onnx"),
        (["--mode", "float16"], "m.float16.onnx"),
        (["--mode", "dynamic"], "m.int8.onnx"),
    ],
)
def test_default_names(capsys: Capsys, folder: Path, argv: list[str], name: str) -> None:
    mlp()
    assert quantize(capsys, "m.onnx", *argv, "--max-drop", "100%").code == 0
    assert (folder / name).exists()


def test_names_with_spaces_and_other_scripts(capsys: Capsys, folder: Path) -> None:
    name = "модель [red] 模型 ü.onnx"
    mlp(name)
    ran = quantize(capsys, name)
    assert ran.code == 0 and name in ran.out and "модель [red] 模型 ü.int8.onnx" in ran.err
    assert cli(capsys, "inspect", "модель [red] 模型 ü.int8.onnx").code == 0


def test_explain_lists_every_weight_with_a_reason(capsys: Capsys) -> None:
    mlp()
    plain, explained = quantize(capsys, "m.onnx").out, quantize(capsys, "m.onnx", "-f", "--explain").out
    assert "What was done, and why" not in plain
    section = explained.split("What was done, and why")[1]
    for name in ("w0", "w1", "b0", "b1"):
        assert f"\n{name} " in section
    assert "quantized" in section and "kept" in section


# --- budgets --------------------------------------------------------------------------------------------------


def test_budget_met(capsys: Capsys, folder: Path) -> None:
    mlp()
    samples()
    ran = quantize(capsys, "m.onnx", "--data", "d.npz", "--max-drop", "20%", "--min-ratio", "1.5")
    assert ran.code == 0
    gates = ran.out.split("Budget\n\n")[1].split("\n\n")[0].splitlines()[2:]
    assert len(gates) == 2 and all(line.endswith("met") for line in gates)
    assert all(gate["ok"] for gate in report(folder)["gates"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--min-ratio", "30"], "30.00x"),
        (["--min-speedup", "1000"], "1000.00x"),
        (["--max-latency", "1us"], "1.00 µs"),
    ],
)
def test_budget_missed(capsys: Capsys, folder: Path, argv: list[str], said: str) -> None:
    mlp()
    ran = quantize(capsys, "m.onnx", *argv)
    assert ran.code == 1
    lines = ran.err.splitlines()
    error = next(line for line in lines if line.startswith("error: "))
    assert said in error and "budget" in error
    assert lines[-1].startswith("hint: m.int8.report.json tells what was tried")
    assert "missed" in ran.out and said in ran.out
    # No artifact, but a report that says so.
    assert sorted(listing(folder)) == ["m.int8.report.json", "m.int8.report.md", "m.onnx"]
    assert report(folder)["status"] == "budget not met"
    assert not all(gate["ok"] for gate in report(folder)["gates"])
    assert "**budget not met**: no artifact was written" in (folder / "m.int8.report.md").read_text()


def test_missed_budget_does_not_stand_in_the_way_of_the_next_run(capsys: Capsys, folder: Path) -> None:
    mlp()
    assert quantize(capsys, "m.onnx", "--min-ratio", "30").code == 1
    assert quantize(capsys, "m.onnx", "--min-ratio", "40").code == 1
    assert quantize(capsys, "m.onnx", "--min-ratio", "1.5").code == 0
    assert report(folder)["status"] == "done"
    # A report that belongs to an artifact is not replaced unasked.
    (folder / "m.int8.onnx").unlink()
    ran = quantize(capsys, "m.onnx")
    assert ran.code == 2 and "exist already" in ran.err


def test_missed_budget_leaves_an_old_artifact_alone(capsys: Capsys, folder: Path) -> None:
    mlp()
    assert quantize(capsys, "m.onnx").code == 0
    before = (folder / "m.int8.onnx").read_bytes()
    assert quantize(capsys, "m.onnx", "--force", "--min-ratio", "30").code == 1
    assert (folder / "m.int8.onnx").read_bytes() == before


# --- where values come from -----------------------------------------------------------------------------------


def test_flags_over_set_over_file_over_defaults(capsys: Capsys, folder: Path) -> None:
    mlp()
    (folder / "q.yaml").write_text("bits: 4\nseed: 3\nweights:\n  scale: mse\n  center: mean\nobjective: size\n")
    argv = ["--config", "q.yaml", "--set", "bits=5", "--set", "seed=4", "--set", "weights.center=range"]
    ran = cli(capsys, "quantize", "m.onnx", *argv, "--bits", "8", "--mode", "weights", *QUICK)
    assert ran.code == 0, ran.err
    found = report(folder)
    expected = {
        "bits": (8, "--bits"),
        "mode": ("weights", "--mode"),
        "seed": (4, "--set seed=4"),
        "weights.center": ("range", "--set weights.center=range"),
        "weights.scale": ("mse", "q.yaml:4"),
        "objective": ("size", "q.yaml:6"),
        "weights.rounding": ("squant", "default"),
    }
    for key, (value, origin) in expected.items():
        at: Any = found["config"]
        for part in key.split("."):
            at = at[part]
        assert (at, found["origins"][key]) == (value, origin), key
    assert found["seed"] == 4
    # Every option that is recorded has an origin.
    assert set(found["origins"]) >= {key for key in found["config"] if not isinstance(found["config"][key], dict)}


def test_later_set_wins_and_lists_replace(capsys: Capsys, folder: Path) -> None:
    mlp()
    (folder / "q.yaml").write_text("exclude: ['b*']\n")
    argv = ["-c", "q.yaml", "--set", "seed=1", "--set", "seed=2", "--exclude", "w1"]
    assert quantize(capsys, "m.onnx", *argv).code == 0
    found = report(folder)
    assert found["seed"] == 2 and found["config"]["exclude"] == ["w1"]
    assert "excluded by 'w1'" in {decision["reason"] for decision in found["decisions"]}


def test_recorded_config_gives_the_same_artifact(capsys: Capsys, folder: Path) -> None:
    mlp()
    assert quantize(capsys, "m.onnx", "--bits", "6", "--mode", "weights", "--set", "weights.scale=mse").code == 0
    (folder / "again.yaml").write_text(yaml.safe_dump(report(folder, "m.int6.report.json")["config"]))
    assert cli(capsys, "quantize", "m.onnx", "--config", "again.yaml", "-o", "again.onnx").code == 0
    assert (folder / "again.onnx").read_bytes() == (folder / "m.int6.onnx").read_bytes()


@pytest.mark.parametrize("share", ["50%", "0.5", "50 %"])
def test_shares_and_times_have_units(capsys: Capsys, folder: Path, share: str) -> None:
    mlp()
    assert quantize(capsys, "m.onnx", "--max-drop", share, "--max-latency", "10s").code == 0
    budget = report(folder)["config"]["budget"]
    assert (budget["max_drop"], budget["max_latency"]) == (0.5, 10_000)


# --- samples --------------------------------------------------------------------------------------------------


def test_a_trained_model_keeps_its_accuracy(capsys: Capsys, folder: Path) -> None:
    for name in ("digits_mlp.onnx", "digits_mlp.calib.npz", "digits_mlp.eval.npz"):
        (folder / name).write_bytes((SAMPLES / name).read_bytes())
    ran = quantize(
        capsys,
        "digits_mlp.onnx",
        "--data",
        "digits_mlp.calib.npz",
        "--test",
        "digits_mlp.eval.npz",
        "--max-drop",
        "0.5%",
        "--json",
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["size_ratio"] < 0.35
    assert found["after"]["quality"]["accuracy"] >= found["before"]["quality"]["accuracy"] - 0.005
    assert found["fidelity"]["top1_agreement"] >= 0.99


def test_time_that_is_over_leaves_ways_out_and_says_what_one_costs(tmp_path, capsys):
    shutil.copy(SAMPLES / "digits_mlp.onnx", tmp_path / "m.onnx")
    argv = ["--time", "1ms", "--set", "measure.seconds=0.05", "-o", str(tmp_path / "q.onnx"), "--json"]
    ran = quantize(capsys, str(tmp_path / "m.onnx"), *argv)
    report = json.loads(ran.out)
    assert ran.code == 0 and len(report["candidates"]) == 1
    start = "the time of 0.001 s was over when one way was tried"
    [note] = [each for each in report["notes"] if each.startswith(start)]
    assert note.endswith(" s") and float(note.split()[-2]) > 0.001
    for wrong in ("0s", "-1s", "soon"):
        assert quantize(capsys, str(tmp_path / "m.onnx"), "--time", wrong).code == 2
