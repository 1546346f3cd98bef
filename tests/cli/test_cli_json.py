"""--json: one document on stdout, of a known shape, and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cli_schemas as schemas
import jsonschema
import numpy as np
import onnx
import pytest
from cli_models import QUICK, Ran, cli, conv, mlp, quantize, samples

Capsys = pytest.CaptureFixture[str]


def document(ran: Ran, schema: dict[str, Any], code: int = 0) -> dict[str, Any]:
    """The only document on stdout, checked."""
    assert ran.code == code, ran.err

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    found = json.loads(ran.out, parse_constant=refuse)
    jsonschema.validate(found, schema, cls=jsonschema.Draft202012Validator)
    assert next(iter(found)) == "schema" and list(found) == list(schema["properties"])
    assert ran.out == json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    return found


def test_report(capsys: Capsys, folder: Path) -> None:
    mlp()
    samples()
    found = document(quantize(capsys, "m.onnx", "--data", "d.npz", "--max-drop", "50%", "--json"), schemas.REPORT)
    assert found["status"] == "done" and found["gates"][0]["ok"] is True
    # The file beside the artifact says the same.
    assert json.loads((folder / "m.int8.report.json").read_text()) == found
    assert found["after"]["file"]["name"] == "m.int8.onnx"
    assert found["after"]["file"]["bytes"] == (folder / "m.int8.onnx").stat().st_size
    assert sorted(p.name for p in folder.iterdir()) == [
        "d.npz",
        "m.int8.onnx",
        "m.int8.report.json",
        "m.int8.report.md",
        "m.onnx",
    ]


def test_report_without_data(capsys: Capsys) -> None:
    mlp()
    found = document(quantize(capsys, "m.onnx", "--json"), schemas.REPORT)
    assert found["before"]["quality"] is None and found["data"]["selection"]["synthetic"] is True


def test_report_of_a_convolution(capsys: Capsys) -> None:
    conv()
    random = np.random.default_rng(0)
    samples(labels=False, image=random.standard_normal((32, 3, 12, 12)).astype("f4"))
    found = document(quantize(capsys, "conv.onnx", "--mode", "static", "--data", "d.npz", "--json"), schemas.REPORT)
    assert found["audit"]["integer"] > 0


def test_report_of_a_missed_budget(capsys: Capsys, folder: Path) -> None:
    mlp()
    ran = quantize(capsys, "m.onnx", "--min-ratio", "30", "--json")
    found = document(ran, schemas.REPORT, code=1)
    assert found["status"] == "budget not met"
    assert ran.err.startswith("error: nothing that was tried is inside the budget")
    assert json.loads((folder / "m.int8.report.json").read_text()) == found


def test_plan(capsys: Capsys) -> None:
    mlp()
    found = document(quantize(capsys, "m.onnx", "--dry-run", "--json"), schemas.PLAN)
    assert found["output"] == "m.int8.onnx" and found["candidates"][0]["bytes"] > 0


def test_inspection(capsys: Capsys) -> None:
    mlp()
    found = document(cli(capsys, "inspect", "m.onnx", "--json"), schemas.INSPECTION)
    assert found["facts"]["parameters"] == 16 * 64 + 64 + 64 * 10 + 10
    assert [layer["name"] for layer in found["facts"]["layers"]] == ["fc0", "fc1"]
    assert quantize(capsys, "m.onnx").code == 0
    found = document(cli(capsys, "inspect", "m.int8.onnx", "--json"), schemas.INSPECTION)
    assert found["facts"]["quantized"]["scheme"] != "none"
    # --layers is about the table: JSON has all of them.
    assert (
        len(
            document(cli(capsys, "inspect", "m.onnx", "--json", "--layers", "1"), schemas.INSPECTION)["facts"][
                "layers"
            ]
        )
        == 2
    )


def test_comparison(capsys: Capsys) -> None:
    mlp()
    mlp("n.onnx", sizes=(16, 32, 10))
    samples()
    argv = ("evaluate", "m.onnx", "n.onnx", "--data", "d.npz", "--json", *QUICK)
    found = document(cli(capsys, *argv), schemas.COMPARISON)
    assert [model["name"] for model in found["models"]] == ["m.onnx", "n.onnx"]
    assert found["models"][0]["fidelity"] is None and found["models"][1]["speedup"]["value"] > 0
    one = document(cli(capsys, "evaluate", "m.onnx", "--json", *QUICK), schemas.COMPARISON)
    assert one["data"]["synthetic"] is True and one["notes"]


def test_same_input_same_document(capsys: Capsys) -> None:
    """All but the times is repeated to the byte."""

    def still(value: Any) -> Any:
        if isinstance(value, dict):
            moving = ("latency", "speedup", "reason", "status")
            return {key: still(item) for key, item in value.items() if key not in moving}
        return [still(item) for item in value] if isinstance(value, list) else value

    mlp()
    samples()
    argv = ("m.onnx", "--mode", "weights", "--data", "d.npz", "--json", "--force")
    first, second = (document(quantize(capsys, *argv), schemas.REPORT) for _ in range(2))
    for report in (first, second):
        # Which of two equally small candidates is chosen may hang on their times.
        for key in ("after", "method", "decisions", "audit", "fidelity", "notes", "size_ratio"):
            report.pop(key) if first["method"] != second["method"] else None
    assert json.dumps(still(first)) == json.dumps(still(second))


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_numbers_that_json_lacks(capsys: Capsys, value: float) -> None:
    """A model whose outputs are infinite or NaN gives null, not a broken document."""
    model = onnx.load(mlp())
    bias = onnx.numpy_helper.from_array(np.full(10, value, "f4"), "b1")
    model.graph.initializer[3].CopyFrom(bias)
    assert model.graph.initializer[3].name == "b1"
    onnx.save(model, "m.onnx")
    mlp("n.onnx")
    samples()
    ran = cli(capsys, "evaluate", "n.onnx", "m.onnx", "--data", "d.npz", "--json", *QUICK)
    found = document(ran, schemas.COMPARISON)
    assert found["models"][1]["fidelity"]["non_finite"] > 0
    assert cli(capsys, "evaluate", "n.onnx", "m.onnx", "--data", "d.npz", *QUICK).code == 0
    ran = quantize(capsys, "m.onnx", "--data", "d.npz", "--json")
    if ran.code == 0:
        document(ran, schemas.REPORT)
    else:
        assert ran.err.startswith("error: ") and "defect" not in ran.err


def test_schema_is_a_json_schema(capsys: Capsys) -> None:
    for command in ("quantize", "evaluate"):
        ran = cli(capsys, "schema", command)
        assert ran.code == 0 and ran.err == ""
        found = json.loads(ran.out)
        jsonschema.Draft202012Validator.check_schema(found)
        assert found["title"] == f"modelkit {command}" and found["additionalProperties"] is False
        assert next(iter(found)) == "$schema"


def test_errors_leave_stdout_empty(capsys: Capsys) -> None:
    for command in (["quantize", "none.onnx"], ["inspect", "none.onnx"], ["evaluate", "none.onnx"]):
        ran = cli(capsys, *command, "--json")
        assert ran.code == 2 and ran.out == "" and ran.err.startswith("error: ")


def test_quiet_prints_nothing(capsys: Capsys, folder: Path) -> None:
    mlp()
    for argv in (
        ["quantize", "m.onnx", *QUICK, "--dry-run"],
        ["quantize", "m.onnx", *QUICK],
        ["inspect", "m.onnx"],
        ["evaluate", "m.onnx", "m.int8.onnx", *QUICK],
    ):
        assert cli(capsys, *argv, "--quiet") == Ran(0, "", "")
    assert (folder / "m.int8.onnx").exists()
    # Errors are still said, and with --json the document is what was asked for.
    assert quantize(capsys, "m.onnx", "--quiet").err.startswith("error: ")
    assert document(cli(capsys, "inspect", "m.onnx", "--quiet", "--json"), schemas.INSPECTION)


def test_verbose_tells_every_stage(capsys: Capsys) -> None:
    mlp()
    ran = quantize(capsys, "m.onnx", "--verbose")
    stages = [line.split(" s  ")[1] for line in ran.err.splitlines() if " s  " in line]
    assert "cleaning up the graph" in stages and "timing" in stages and len(stages) >= 4
