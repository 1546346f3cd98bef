"""`modelkit run`: what it prints, what it refuses, and a folder of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cli_schemas as schemas
import jsonschema
import numpy as np
import pytest
from cli_models import QUICK, Ran, cli, listing, mlp, samples, widest

Capsys = pytest.CaptureFixture[str]

RECIPE = """\
steps:
  - command: prune
    sparsity: 0.5
  - command: quantize
    mode: weights
"""
TWICE = RECIPE + "  - command: quantize\n"


@pytest.fixture(autouse=True)
def recipe(folder: Path) -> Path:
    path = folder / "r.yaml"
    path.write_text(RECIPE)
    mlp()
    samples()
    return path


def run(capsys: Capsys, *argv: object) -> Ran:
    return cli(capsys, "run", "r.yaml", "m.onnx", *argv, *QUICK)


def document(ran: Ran, schema: dict[str, Any], code: int = 0) -> dict[str, Any]:
    assert ran.code == code, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(found, schema, cls=jsonschema.Draft202012Validator)
    assert list(found) == list(schema["properties"])
    return found


def error_of(ran: Ran, code: int = 2) -> str:
    assert ran.code == code and ran.out == "", ran
    return told(ran)


def told(ran: Ran) -> str:
    """The error and its hint, without the progress that a slow machine prints before."""
    return ran.err[ran.err.index("error: ") :]


def test_report_and_files(capsys: Capsys, folder: Path) -> None:
    found = document(run(capsys, "--data", "d.npz", "--json"), schemas.RECIPE)
    assert json.loads((folder / "m.pruned.int8.report.json").read_text()) == found
    assert [step["command"] for step in found["steps"]] == ["prune", "quantize"]
    hidden = {name for name in listing(folder) if name.startswith(".modelkit/cache/")}
    assert len(hidden) == 4
    ran = run(capsys, "--data", "d.npz", "--force")
    assert ran.code == 0 and widest(ran.out) <= 80
    assert "After each step, against the original" in ran.out and ran.out.count("cached") == 2


def test_table_of_an_older_report_is_unchanged(capsys: Capsys) -> None:
    found = document(cli(capsys, "quantize", "m.onnx", "--json", *QUICK), schemas.REPORT)
    assert "steps" not in found


def test_outputs_that_exist_are_refused(capsys: Capsys, folder: Path) -> None:
    assert run(capsys).code == 0
    before = listing(folder)
    assert "exist already" in error_of(run(capsys))
    assert "is the input" in error_of(run(capsys, "-o", "m.onnx", "--force"))
    assert "is the input" in error_of(run(capsys, "-o", "d.npz", "--data", "d.npz", "--force"))
    assert listing(folder) == before


def test_dry_run_writes_nothing(capsys: Capsys, folder: Path) -> None:
    before = listing(folder)
    found = document(run(capsys, "--dry-run", "--json", "--data", "d.npz"), schemas.RECIPE_PLAN)
    assert listing(folder) == before
    first, second = found["steps"]
    assert not first["cached"] and not second["cached"]
    assert second["candidates"][0]["bytes"] < 0.5 * found["original_bytes"]
    assert run(capsys, "--data", "d.npz").code == 0
    again = run(capsys, "--dry-run", "--data", "d.npz", "--force", "--explain", "--set", "steps.1.bits=4")
    assert "Step 1: prune, cached" in again.out and "Step 2: quantize\n" in again.out
    assert "(step 2, " in again.out and "(step 1" not in again.out and widest(again.out) <= 80


def test_nothing_to_do_ends_the_run_with_the_steps_name(capsys: Capsys, recipe: Path, folder: Path) -> None:
    recipe.write_text(TWICE)
    said = error_of(run(capsys))
    assert said.startswith("error: step 3 (quantize): the model is already quantized")
    assert not list(folder.glob("m.*.onnx"))
    found = document(run(capsys, "--set", "steps.2.optional=true", "--json"), schemas.RECIPE)
    assert [step["status"] for step in found["steps"]] == ["done", "done", "skipped"]
    assert [step["cached"] for step in found["steps"]] == [True, True, False]
    assert found["method"] == "prune → quantize" and found["audit"] is not None
    assert any("step 3 (quantize) was skipped" in note for note in found["notes"])
    plan = document(
        run(capsys, "--set", "steps.2.optional=true", "--json", "--dry-run", "--force"), schemas.RECIPE_PLAN
    )
    assert plan["steps"][2]["reason"].startswith("skipped: the model is already quantized")


def test_all_steps_skipped_is_an_error(capsys: Capsys, recipe: Path, folder: Path) -> None:
    assert cli(capsys, "quantize", "m.onnx", "--mode", "weights", *QUICK).code == 0
    recipe.write_text("steps:\n  - {command: quantize, optional: true}\n")
    ran = cli(capsys, "run", "r.yaml", "m.int8.onnx", *QUICK)
    assert error_of(ran).startswith("error: no step had anything to do: step 1 (quantize): the model is already")
    assert sorted(path.name for path in folder.glob("m.int8.*")) == [
        "m.int8.onnx",
        "m.int8.report.json",
        "m.int8.report.md",
    ]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{command: prune}", "step 3 (prune): how much should be pruned?"),
        ("{command: quantize, mode: static}", "step 3 (quantize): static quantization needs calibration data"),
        ("{command: quantize, data: none.npz}", "the data 'none.npz' of step 3 does not exist"),
        ("{command: quantize, data: bad.npz}", "step 3 (quantize): "),
    ],
)
def test_what_a_later_step_lacks_is_said_before_the_first(
    capsys: Capsys, recipe: Path, folder: Path, step: str, said: str
) -> None:
    samples("bad.npz", x=np.zeros((20, 3), "f4"))
    recipe.write_text(f"{RECIPE}  - {step}\n")
    assert error_of(run(capsys)).startswith(f"error: {said}")
    assert not (folder / ".modelkit").exists()


def test_test_data_is_for_nothing_else(capsys: Capsys, recipe: Path) -> None:
    assert "both to work with and to test on" in error_of(run(capsys, "--data", "d.npz", "--test", "d.npz"))
    assert "both to work with and to test on" in error_of(
        run(capsys, "--test", "d.npz", "--set", "steps.1.data=d.npz")
    )


def test_a_step_that_misses_its_own_budget_ends_the_run(capsys: Capsys, folder: Path) -> None:
    ran = run(capsys, "--json", "--set", "steps.1.budget.min_ratio=50")
    found = document(ran, schemas.RECIPE, code=1)
    assert told(ran).startswith("error: step 2 (quantize): nothing that was tried is inside the budget")
    assert [step["status"] for step in found["steps"]] == ["done", "budget not met"]
    assert found["steps"][1]["candidates"] and not list(folder.glob("m.*.onnx"))
    assert found["after"]["file"]["sha256"] == found["steps"][0]["artifact"]["sha256"]
    # The report of a failure is in nobody's way.
    ran = run(capsys, "--max-size", "1B")
    assert ran.code == 1 and "step 2" not in told(ran) and "file size" in ran.out and widest(ran.out) <= 80
    first = run(capsys, "--json", "--set", "steps.0.budget.min_ratio=50")
    assert document(first, schemas.RECIPE, code=1)["after"]["file"]["bytes"] == (folder / "m.onnx").stat().st_size


def test_cache_options(capsys: Capsys, folder: Path) -> None:
    assert "--cache and --no-cache" in error_of(run(capsys, "--cache", "c", "--no-cache"))
    assert run(capsys, "--no-cache").code == 0
    assert not (folder / ".modelkit").exists()
    assert run(capsys, "--cache", "deep/c", "--force").code == 0
    assert len(list((folder / "deep" / "c").iterdir())) == 4 and not (folder / ".modelkit").exists()


def test_mistakes_in_flags_and_file_at_once(capsys: Capsys, recipe: Path) -> None:
    recipe.write_text("steps:\n  - {command: prune, sparsity: 2}\n")
    said = error_of(run(capsys, "--max-drop", "lots", "--set", "steps.0.bits=3"))
    for part in ("3 problems", "r.yaml:2: steps.0.sparsity", "--max-drop: 'lots'", "unknown key 'steps.0.bits'"):
        assert part in said
    assert said.rstrip().endswith("hint: modelkit schema run lists every key and what it takes")
    assert "does not exist" in error_of(cli(capsys, "run", "no.yaml", "m.onnx"))


def test_a_folder_of_models(capsys: Capsys, folder: Path) -> None:
    (folder / "models" / "deep").mkdir(parents=True)
    for name in ("a.onnx", "deep/a.onnx", "deep/b.onnx"):
        mlp(folder / "models" / name, sizes=(16, 48 if "b" in name else 64, 10))
    (folder / "models" / "broken.onnx").write_bytes(b"\x08\x07")
    samples("own.npz")
    argv = ("run", "r.yaml", "models", "-o", "out", "--json", "--set", "steps.0.data=own.npz", *QUICK)
    ran = cli(capsys, *argv, "--workers", "2")
    assert ran.code == 3, ran.err
    rows = {row["model"]: row for row in map(json.loads, ran.out.splitlines()[:-1])}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.onnx": "done",
        "broken.onnx": "failed",
        "deep/a.onnx": "done",
        "deep/b.onnx": "done",
    }
    assert rows["deep/b.onnx"]["output"] == "deep/b.pruned.int8.onnx"
    report = json.loads((folder / "out" / "deep" / "b.pruned.int8.report.json").read_text())
    jsonschema.validate(report, schemas.RECIPE, cls=jsonschema.Draft202012Validator)
    # One cache for all; the two equal models share what is in it.
    assert len(list((folder / "out" / ".modelkit" / "cache").glob("*.json"))) == 4

    def resumed(*more: str) -> list[bool]:
        found = cli(capsys, *argv, *more, "--resume")
        assert found.code in (0, 3), found.err
        return [row["resumed"] for row in map(json.loads, found.out.splitlines()[:-1])]

    assert resumed("--skip", "broken*") == [True, True, True]
    assert resumed("--skip", "broken*", "--cache", "elsewhere") == [True, True, True]
    samples("own.npz", rows=40)
    assert resumed("--match", "deep/b.onnx") == [False]
