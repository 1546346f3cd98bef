"""`--html` through the command line: a page beside the report, written with it or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_models import cli, listing, mlp, quantize, samples
from safetensors.numpy import save_file

Capsys = pytest.CaptureFixture[str]


def title(page: Path | str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", Path(page).read_text(encoding="utf-8"))
    assert found is not None
    return found.group(1)


def test_quantize_writes_a_page_beside_the_report(folder: Path, capsys: Capsys) -> None:
    ran = quantize(capsys, mlp(), "--html")
    assert ran.code == 0, ran.err
    made = {"m.int8.onnx", "m.int8.report.json", "m.int8.report.md", "m.int8.report.html"}
    assert set(listing(folder)) == {"m.onnx", *made}
    assert title("m.int8.report.html") == "m.onnx"
    report = json.loads(Path("m.int8.report.json").read_text())
    assert report["after"]["file"]["sha256"] in Path("m.int8.report.html").read_text()


def test_no_page_without_the_flag(folder: Path, capsys: Capsys) -> None:
    assert quantize(capsys, mlp()).code == 0
    assert not [name for name in listing(folder) if name.endswith(".html")]


def test_a_page_that_exists_is_refused_before_any_work(folder: Path, capsys: Capsys) -> None:
    model = mlp()
    Path("m.int8.report.html").write_text("mine")
    ran = quantize(capsys, model, "--html")
    assert ran.code == 2 and "m.int8.report.html' exists already" in ran.err
    assert set(listing(folder)) == {"m.onnx", "m.int8.report.html"}
    assert quantize(capsys, model, "--html", "--force").code == 0
    assert title("m.int8.report.html") == "m.onnx"


def test_a_missed_budget_leaves_the_page_that_says_so(folder: Path, capsys: Capsys) -> None:
    ran = quantize(capsys, mlp(), "--html", "--min-ratio", "50")
    assert ran.code == 1
    assert set(listing(folder)) == {"m.onnx", "m.int8.report.json", "m.int8.report.md", "m.int8.report.html"}
    assert "Budget not met" in Path("m.int8.report.html").read_text(encoding="utf-8")


def test_prune_with_training_shows_its_epochs(folder: Path, capsys: Capsys) -> None:
    argv = ["prune", mlp(), "--sparsity", "0.5", "--method", "magnitude", "--data", samples(), "--finetune", "2"]
    ran = cli(capsys, *argv, "--html", "--set", "measure.seconds=0.001")
    assert ran.code == 0, ran.err
    page = Path("m.pruned.report.html").read_text(encoding="utf-8")
    assert ">Training<" in page and '"epoch":2' in page
    report = json.loads(Path("m.pruned.report.json").read_text())
    assert [epoch["number"] for epoch in report["history"][0]["epochs"]] == [0, 1, 2]


def test_weights_alone_get_a_page_too(folder: Path, capsys: Capsys) -> None:
    import numpy as np

    save_file({"a.weight": np.ones((8, 8), "f4"), "b.weight": np.ones((4, 8), "f4")}, "w.safetensors")
    assert cli(capsys, "prune", "w.safetensors", "--sparsity", "0.5", "--html").code == 0
    assert title("w.pruned.report.html") == "w.safetensors"
    ran = cli(capsys, "inspect", "w.safetensors", "--html")
    assert ran.code == 0 and "wrote w.inspection.html" in ran.err
    assert "2 tensors without an architecture" in Path("w.inspection.html").read_text(encoding="utf-8")


def test_inspect_and_evaluate_write_a_page_beside_the_model(folder: Path, capsys: Capsys) -> None:
    model, other = mlp(), mlp("n.onnx")
    assert cli(capsys, "inspect", model, "--html").code == 0
    assert title("m.inspection.html") == "m.onnx"
    again = cli(capsys, "inspect", model, "--html")
    assert again.code == 2 and "exists already" in again.err
    assert cli(capsys, "evaluate", model, other, "--html", "--seconds", "0.001", "--json").code == 0
    assert "against n.onnx" in Path("m.comparison.html").read_text(encoding="utf-8")


def test_output_names_the_page_of_a_command_that_only_looks(folder: Path, capsys: Capsys) -> None:
    model = mlp()
    assert cli(capsys, "inspect", model, "--html", "-o", "pages/look.html").code == 0
    assert title("pages/look.html") == "m.onnx"
    for wrong, said in (("page.json", "no name of a page"), (model, "no name of a page")):
        ran = cli(capsys, "inspect", model, "--html", "-o", wrong, "--force")
        assert ran.code == 2 and said in ran.err
    ran = cli(capsys, "inspect", model, "-o", "look.html")
    assert ran.code == 2 and "--output is for a folder of models" in ran.err
    assert set(listing(folder)) == {"m.onnx", "pages", "pages/look.html"}


def test_a_page_of_a_folder_needs_a_place(folder: Path, capsys: Capsys) -> None:
    (folder / "models").mkdir()
    mlp("models/a.onnx")
    ran = cli(capsys, "inspect", "models", "--html")
    assert ran.code == 2 and "--html needs a folder for the pages" in ran.err
