"""Pages of a folder of models: one for each, and an index that leads to them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import job_models
import pytest
from job_inline import InlineRunner

from modelkit.cli.app import run

QUICK = ["--set", "measure.seconds=0.001", "--set", "objective=size", "--mode", "weights", "--quiet"]


@pytest.fixture(autouse=True)
def inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without worker processes, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelkit.batch.run.LocalRunner", InlineRunner)
    for name in ("a.onnx", "deep/b c.onnx", "broken.onnx"):
        path = Path("models") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "broken.onnx":
            path.write_text("no model")
        else:
            job_models.mlp(path)


def links() -> list[str]:
    """Where the index leads."""
    return [unquote(href) for href in re.findall(r'href="\./([^"]+)"', Path("out/index.html").read_text())]


def test_every_model_has_a_page_and_the_index_leads_there() -> None:
    assert run(["quantize", "models", "-o", "out", "--html", *QUICK]) == 3
    assert links() == ["a.int8.report.html", "deep/b c.int8.report.html"]
    assert all((Path("out") / link).is_file() for link in links())
    text = Path("out/index.html").read_text()
    assert "2 done, 1 failed; together" in text and "broken.onnx" in text
    rows = json.loads(Path("out/summary.json").read_text())["models"]
    assert [row["page"] for row in rows] == ["a.int8.report.html", None, "deep/b c.int8.report.html"]


def test_resuming_keeps_the_links() -> None:
    assert run(["quantize", "models", "-o", "out", "--html", *QUICK]) == 3
    before = links()
    pages = {link: (Path("out") / link).stat().st_mtime_ns for link in before}
    Path("models/broken.onnx").unlink()
    assert run(["quantize", "models", "-o", "out", "--html", "--resume", *QUICK]) == 0
    assert links() == before
    assert {link: (Path("out") / link).stat().st_mtime_ns for link in before} == pages


def test_a_page_that_was_lost_is_made_again() -> None:
    Path("models/broken.onnx").unlink()
    assert run(["quantize", "models", "-o", "out", "--html", *QUICK]) == 0
    Path("out/a.int8.report.html").unlink()
    assert run(["quantize", "models", "-o", "out", "--html", "--resume", *QUICK]) == 0
    assert Path("out/a.int8.report.html").is_file()


def test_without_the_flag_there_is_no_index() -> None:
    assert run(["inspect", "models", "-o", "out", "--quiet"]) == 3
    assert not list(Path("out").rglob("*.html"))


@pytest.mark.parametrize(
    ("command", "kind"), [(["inspect"], "inspection"), (["evaluate", "--seconds", "0.001"], "comparison")]
)
def test_commands_that_only_look_have_pages(command: list[str], kind: str) -> None:
    assert run([command[0], "models", "-o", "out", "--html", "--quiet", *command[1:]]) == 3
    assert links() == [f"a.{kind}.html", f"deep/b c.{kind}.html"]
    assert all((Path("out") / link).is_file() for link in links())


def test_a_missed_budget_has_a_page_too() -> None:
    Path("models/broken.onnx").unlink()
    assert run(["quantize", "models", "-o", "out", "--html", "--min-ratio", "50", *QUICK]) == 1
    assert links() == ["a.int8.report.html", "deep/b c.int8.report.html"]
    assert "budget not met" in Path("out/index.html").read_text()
