"""Pages as bytes: one file, small, the same for the same report, with everything that the report says."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from typing import Any

import pytest
from html_parsed import Parsed, parse
from html_reports import comparison, inspection, report, weights

from modelkit.decision import Decision
from modelkit.report.html.page import render
from modelkit.report.summary import Row, Summary

LIMIT = 1_500_000
TIMES = "\N{MULTIPLICATION SIGN}"


def summary() -> Summary:
    figures = {
        "before_bytes": 400,
        "after_bytes": 100,
        "method": "weights",
        "speedup": {"value": 1.5, "low": 1.4, "high": 1.6},
        "metric": None,
        "quality_before": None,
        "quality_after": None,
        "agreement": 1.0,
        "sqnr_db": 30.0,
        "exact": False,
    }
    return Summary(
        "quantize",
        [
            Row("a/b c.onnx", "done", "a/b c.int8.onnx", figures, page="a/b c.int8.report.html", seconds=1.5),
            Row("slow.onnx", "budget not met", None, figures, reason="misses max_latency", page="slow.html"),
            Row("broken.onnx", "failed", reason="it is a text file", exit_code=2),
        ],
        notes=["2 files were left out"],
        config={"bits": 8},
        seconds=12.3,
        version="0.1.0",
    )


EVERY: dict[str, Any] = {
    "transform": report,
    "missed": lambda: report(status="budget not met"),
    "inspection": inspection,
    "weights": weights,
    "comparison": comparison,
    "evaluation of one": lambda: comparison(1),
    "folder": summary,
}


@pytest.fixture(params=EVERY)
def found(request: pytest.FixtureRequest) -> Any:
    return EVERY[request.param]()


def test_page_is_well_formed_and_asks_nothing_of_a_network(found: Any) -> None:
    page = parse(render(found).decode())
    assert page.problems == []
    fetching = {"src", "srcset", "data", "action", "poster", "background", "ping"}
    for tag, attributes in page.tags:
        assert not fetching & set(attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "img", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in attributes.get("style", "")
    for href in page.links:
        assert href.startswith(("#", "./")), href
    assert "@import" not in page.styles and "url(" not in page.styles


def test_only_the_scripts_of_the_page_may_run(found: Any) -> None:
    page = parse(render(found).decode())
    policy = page.policy
    assert "default-src 'none'" in policy and "base-uri 'none'" in policy
    scripts = re.search(r"script-src ([^;]*);", policy)
    assert scripts is not None
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in page.scripts}
    assert set(scripts.group(1).split()) == hashes and "unsafe" not in scripts.group(1)


def test_same_report_gives_the_same_bytes(found: Any) -> None:
    first = render(found)
    assert render(found) == first
    assert len(first) < LIMIT


def test_page_says_what_the_report_says() -> None:
    text = parse(render(report()).decode()).text
    for said in (
        "net.onnx",
        f"The artifact is 3.64{TIMES} smaller and 2.00{TIMES} faster; accuracy falls from 95.00 % to 94.00 %.",
        "400 kB → 110 kB",
        "95 % interval 1.95 to 2.05",
        "\N{MINUS SIGN}1.00 points",
        "on 1000 samples",
        "it cannot be made",  # a candidate that failed
        "/model/layers.4/attention/MatMul",
        "scales would cost more than they save",
        "into the layer before it",
        "quantize.yaml:3",
        "cross-entropy",
        "weights of epoch 2 were kept",
        "the samples are few",
        "0f" * 32,
        "cd" * 32,
        "a processor",
        "max_drop",
    ):
        assert said in text, said


def test_missed_budget_is_said_first() -> None:
    text = parse(render(report(status="budget not met")).decode()).text
    assert text.index("Budget not met") < text.index("smaller and")


def test_index_leads_to_the_pages_and_has_totals() -> None:
    page = parse(render(summary()).decode())
    assert [href for href in page.links if href.startswith("./")] == ["./a/b%20c.int8.report.html", "./slow.html"]
    for said in ("1 done, 1 outside the budget, 1 failed", "it is a text file", "misses max_latency", "12.3 s"):
        assert said in page.text, said


def test_index_needs_no_charts() -> None:
    assert len(render(summary())) < 60_000


@pytest.mark.parametrize("layers", [1000, 20_000])
def test_page_of_many_layers_stays_small(layers: int) -> None:
    page = render(report(layers))
    assert len(page) < LIMIT
    rows = parse(page.decode()).rows["layers"]
    if layers == 1000:
        assert rows == 1000
    else:
        assert 500 < rows < layers
        assert f"{layers - rows} more layers, the smallest, are left out" in parse(page.decode()).text


def test_page_of_long_texts_stays_small() -> None:
    found = report(3000)
    found.decisions = [Decision(d.target, d.action, '&<>"' * 1000, d.numbers) for d in found.decisions]
    found.notes = ["<&>" * 5000] * 3000
    found.history = [{**found.history[0], "epochs": found.history[0]["epochs"] * 5000}]
    found.candidates = [{**found.candidates[0], "name": f"{i} {'&' * 500}"} for i in range(3000)]
    assert len(render(found)) < LIMIT


def test_numbers_that_are_not_finite_are_no_numbers() -> None:
    found = report()
    found.candidates[0]["fidelity"]["sqnr_db"] = float("inf")
    found.history[0]["epochs"][1]["loss"] = float("nan")
    text = render(found).decode()
    assert "NaN" not in parse(text).data and "Infinity" not in parse(text).data


def test_nothing_of_pages_is_loaded_without_being_asked_for() -> None:
    code = (
        "import sys, modelkit.api, modelkit.transform.pipeline, modelkit.transform.graphless\n"
        "import modelkit.compare.compare, modelkit.cli.app\n"
        "print([name for name in ('vl_convert', 'jinja2', 'modelkit.report.html.page') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parser_of_this_file_sees_what_it_looks_for() -> None:
    parsed = Parsed()
    parsed.feed('<p onclick="x"><img src="y"><script>z</script>')
    assert ("p", {"onclick": "x"}) in parsed.tags and parsed.scripts == ["z"]
