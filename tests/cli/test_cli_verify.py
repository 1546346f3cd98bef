"""`modelkit verify`: what a report says is found out again, line by line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_models import Ran, cli, mlp, quantize, samples
from lxml import etree

from modelkit import api

Capsys = pytest.CaptureFixture[str]
REPORT = "m.int8.report.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its data, its artifact and the report."""
    folder = tmp_path_factory.mktemp("made")
    mlp(folder / "m.onnx")
    samples(folder / "d.npz")
    api.quantize(folder / "m.onnx", data=folder / "d.npz", config={"mode": "weights", "measure.seconds": 0.001})
    return folder


@pytest.fixture
def results(made: Path, folder: Path) -> Path:
    """The same in the current folder."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


def verify(capsys: Capsys, *argv: object) -> Ran:
    ran = cli(capsys, "verify", *(argv or (REPORT,)), "--seconds", "0.001", "--tolerance", "100000%")
    # On a busy machine it takes long enough to tell how far it is.
    errors = [line for line in ran.err.splitlines(keepends=True) if not re.fullmatch(r"[\w ]+ \d+ %.*\n", line)]
    return ran._replace(err="".join(errors))


def checks(capsys: Capsys, *argv: object) -> dict[str, str]:
    ran = verify(capsys, *(argv or (REPORT,)), "--json")
    assert ran.out, ran.err
    return {check["name"]: check["outcome"] for check in json.loads(ran.out)["checks"]}


def edit(change: Callable[[dict[str, Any]], object], name: str = REPORT) -> None:
    found = json.loads(Path(name).read_text(encoding="utf-8"))
    change(found)
    Path(name).write_text(json.dumps(found), encoding="utf-8")


def differing(found: dict[str, str]) -> set[str]:
    return {name for name, outcome in found.items() if outcome == "differs"}


def test_a_report_that_is_true(capsys: Capsys, results: Path) -> None:
    ran = verify(capsys)
    assert (ran.code, ran.err) == (0, "")
    found = checks(capsys)
    assert set(found.values()) == {"agrees"}
    assert {
        "original sha256",
        "artifact sha256",
        "artifact bytes",
        "artifact non-zero parameters",
        "calibration samples",
        "selection samples",
        "test samples",
        "original accuracy",
        "artifact accuracy",
        "artifact log-loss",
        "same predictions",
        "output SQNR",
        "artifact latency, median",
        "speed-up",
    } <= set(found)
    assert "not checked" not in ran.out and "Why" not in ran.out
    assert verify(capsys, REPORT, "--strict").code == 0


FALSE: dict[str, tuple[Callable[[dict[str, Any]], object], set[str]]] = {
    "accuracy": (lambda r: r["after"]["quality"].update(accuracy=0.999), {"artifact accuracy"}),
    "original": (lambda r: r["before"]["quality"].update(log_loss=0.0), {"original log-loss"}),
    "agreement": (lambda r: r["fidelity"].update(top1_agreement=0.5), {"same predictions"}),
    "noise": (lambda r: r["fidelity"].update(sqnr_db=99.0), {"output SQNR"}),
    "bytes": (
        lambda r: r["after"]["size"].update(file_bytes=r["after"]["size"]["file_bytes"] - 1),
        {"artifact bytes"},
    ),
    "zeros": (lambda r: r["after"]["size"].update(nonzero_parameters=1), {"artifact non-zero parameters"}),
    "samples": (lambda r: r["data"]["selection"].update(sha256="0" * 64), {"selection samples"}),
    "another seed": (
        lambda r: r["config"].update(seed=7),
        {"calibration samples", "selection samples", "test samples"},
    ),
}


@pytest.mark.parametrize("name", FALSE)
def test_a_figure_that_is_not_so(capsys: Capsys, results: Path, name: str) -> None:
    change, wrong = FALSE[name]
    edit(change)
    ran = verify(capsys)
    assert ran.code == 1
    assert ran.err.startswith(f"error: {len(wrong)} of ") and "figures differ from the report" in ran.err
    for line in wrong:
        assert f"{line}: " in ran.err
    assert differing(checks(capsys)) == wrong


def test_a_difference_that_rounding_hides_is_said(capsys: Capsys, results: Path) -> None:
    edit(lambda r: r["after"]["quality"].update(accuracy=r["after"]["quality"]["accuracy"] + 4e-5))
    ran = verify(capsys)
    assert ran.code == 1 and "rounded for reading they look the same" in ran.err


def test_another_artifact(capsys: Capsys, results: Path) -> None:
    content = bytearray(Path("m.int8.onnx").read_bytes())
    content[-1] ^= 1
    Path("m.int8.onnx").write_bytes(content)
    ran = verify(capsys)
    assert ran.code == 1
    assert "artifact sha256: " in ran.err and "it is another file: nothing else of it is compared" in ran.err
    assert "artifact accuracy" not in ran.out


def test_another_original_is_not_compared_with(capsys: Capsys, results: Path) -> None:
    mlp("m.onnx", sizes=(16, 8, 10))
    found = checks(capsys)
    assert differing(found) == {"original sha256"}
    assert found["original accuracy"] == found["same predictions"] == found["speed-up"] == "not checked"
    assert found["artifact accuracy"] == "agrees"


def test_missing_files_are_told(capsys: Capsys, results: Path) -> None:
    Path("d.npz").unlink()
    ran = verify(capsys)
    assert ran.code == 0
    assert "'d.npz' is not beside the report; --data names it" in " ".join(ran.out.split())
    strict = verify(capsys, REPORT, "--strict")
    assert strict.code == 1
    assert strict.err.splitlines()[0] == "error: not all of the report could be checked"
    Path("m.onnx").unlink()
    assert "'m.onnx' is not beside the report; --model names it" in " ".join(verify(capsys).out.split())
    Path("m.int8.onnx").unlink()
    ran = verify(capsys)
    assert ran.code == 1
    assert "missing found: 'm.int8.onnx' is not beside the report; --artifact names it" in ran.err


def test_files_that_are_elsewhere(capsys: Capsys, results: Path) -> None:
    (results / "away").mkdir()
    for name in ("m.onnx", "d.npz", "m.int8.onnx"):
        shutil.move(name, "away/" + name)
    shutil.move(REPORT, "away/there.json")
    (results / "in").mkdir()
    shutil.move("away/there.json", "in/there.json")
    argv = ["in/there.json", "--model", "away/m.onnx", "--artifact", "away/m.int8.onnx", "--data", "away/d.npz"]
    assert set(checks(capsys, *argv).values()) == {"agrees"}


def test_made_up_samples_are_made_again(capsys: Capsys, folder: Path) -> None:
    mlp()
    assert quantize(capsys, "m.onnx", "--seed", "5").code == 0
    found = checks(capsys)
    assert found["selection samples"] == found["output SQNR"] == "agrees"


def test_a_test_set_of_its_own(capsys: Capsys, folder: Path) -> None:
    mlp()
    samples()
    random = np.random.default_rng(9)
    np.savez("t.npz", x=random.standard_normal((40, 16)).astype("f4"), labels=random.integers(0, 10, 40))
    assert quantize(capsys, "m.onnx", "--data", "d.npz", "--test", "t.npz").code == 0
    assert set(checks(capsys).values()) == {"agrees"}
    shutil.move("t.npz", "elsewhere.npz")
    found = checks(capsys)
    assert found["samples of --test"] == found["artifact accuracy"] == "not checked"
    assert set(checks(capsys, REPORT, "--test", "elsewhere.npz").values()) == {"agrees"}
    found = checks(capsys, REPORT, "--test", "d.npz")
    assert "test samples" in differing(found)


def test_external_weights_belong_to_the_artifact(capsys: Capsys, folder: Path) -> None:
    model = onnx.load(mlp())
    onnx.save_model(model, "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    assert quantize(capsys, "m.onnx").code == 0
    assert json.loads(Path(REPORT).read_text())["before"]["file"]["external"].keys() == {"m.bin"}
    assert set(checks(capsys).values()) == {"agrees"}
    content = bytearray(Path("m.bin").read_bytes())
    content[0] ^= 1
    Path("m.bin").write_bytes(content)
    assert differing(checks(capsys)) == {"original data 'm.bin'"}
    Path("m.bin").unlink()
    assert differing(checks(capsys)) == {"original data 'm.bin'"}


def test_latency(capsys: Capsys, results: Path) -> None:
    edit(lambda r: (r["after"]["latency"].update(median_ms=1e-9), r["speedup"].update(low=1e9, value=1e9, high=1e9)))
    ran = cli(capsys, "verify", REPORT, "--seconds", "0.001")
    assert ran.code == 1 and "artifact latency, median: " in ran.err and "speed-up: " in ran.err
    ran = cli(capsys, "verify", REPORT, "--no-latency")
    assert ran.code == 0 and "--no-latency was given" in ran.out
    edit(lambda r: r["machine"].update(cpu="another\x1b[31m processor"))
    ran = cli(capsys, "verify", REPORT, "--seconds", "0.001")
    assert ran.code == 0 and r"it was measured on another\x1b[31m processor" in " ".join(ran.out.split())


def test_what_an_original_checkpoint_needs(capsys: Capsys, results: Path) -> None:
    """A report does not say what code builds a module: the user does."""
    from safetensors.numpy import save_file

    save_file({"w": np.zeros((2, 2), "f4")}, "w.safetensors")
    from modelkit.files import file_record

    edit(lambda r: r["before"].update(file=file_record(Path("w.safetensors"))))
    found = json.loads(verify(capsys, REPORT, "--json").out)
    outcomes = {check["name"]: check["outcome"] for check in found["checks"]}
    assert outcomes["original sha256"] == outcomes["artifact accuracy"] == "agrees"
    assert outcomes["original accuracy"] == "not checked"
    assert found["notes"][0].startswith("the original was not run: 'w.safetensors' holds weights and no architecture")


def test_pruned_weights_without_a_graph(capsys: Capsys, folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.random.default_rng(0).standard_normal((64, 64)).astype("f4")}, "w.safetensors")
    assert cli(capsys, "prune", "w.safetensors", "--sparsity", "0.5").code == 0
    ran = cli(capsys, "verify", "w.pruned.report.json")
    assert (ran.code, ran.err) == (0, "")
    Path("w.pruned.safetensors").write_bytes(Path("w.safetensors").read_bytes())
    assert cli(capsys, "verify", "w.pruned.report.json").code == 1


def test_continuous_integration_is_told(capsys: Capsys, results: Path) -> None:
    Path("d.npz").unlink()
    edit(lambda r: r["after"]["size"].update(parameters=3))
    ran = verify(capsys, REPORT, "--junit", "j.xml", "--github")
    assert ran.code == 1
    schema = etree.XMLSchema(etree.parse(Path(__file__).parents[1] / "report" / "junit.xsd"))
    root = etree.parse("j.xml").getroot()
    schema.assertValid(root)
    found = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert found["artifact parameters"] == ["failure"]
    assert found["artifact accuracy"] == ["skipped"] and found["artifact sha256"] == []
    assert f"::error file={REPORT},title=modelkit verify%3A artifact parameters::" in ran.err or (
        "::error title=modelkit verify%3A artifact parameters::" in ran.err
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["none.json"], "error: 'none.json' does not exist"),
        (["m.onnx"], "error: 'm.onnx' is not JSON"),
        ([REPORT, "--model", "none.onnx"], "error: --model 'none.onnx' does not exist"),
        ([REPORT, "--data", "none.npz"], "error: --data 'none.npz' does not exist"),
        ([REPORT, "--test", "d.npz"], "error: --test is given, and the report is about a run without"),
        ([REPORT, "--tolerance", "a bit"], "error: --tolerance: 'a bit' is not a share"),
        ([REPORT, "--artifact", "."], "error: the artifact '.' is not a regular file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse(capsys: Capsys, results: Path, argv: list[str], said: str) -> None:
    ran = cli(capsys, "verify", *argv, "--seconds", "0.001")
    assert (ran.code, ran.out) == (2, "") and ran.err.startswith(said), ran.err


def test_a_run_that_missed_its_budget_has_nothing_to_verify(capsys: Capsys) -> None:
    mlp()
    assert quantize(capsys, "m.onnx", "--min-ratio", "30").code == 1
    ran = cli(capsys, "verify", REPORT)
    assert ran.code == 2 and "is about a run that wrote no artifact (budget not met)" in ran.err
    assert cli(capsys, "inspect", "m.onnx", "--json").code == 0
    Path("i.json").write_text(cli(capsys, "inspect", "m.onnx", "--json").out)
    ran = cli(capsys, "verify", "i.json")
    assert "is no report of a transform (modelkit.report/1) but 'modelkit.inspection/1'" in ran.err
