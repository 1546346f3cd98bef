"""Texts from hostile models, data and configs in pages for the browser: shown as they are, never obeyed."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelkit.cli.app import run
from modelkit.decision import Decision
from modelkit.report.html.page import render
from modelkit.report.report import Gate, Report, Side
from modelkit.report.summary import Row, Summary

PAYLOADS = {
    "script": "<script>window.owned = 1; alert(1)</script>",
    "end of script": "</script><script>window.owned = 1</script>",
    "end of json": '"}]}</script><img src=x onerror="window.owned=1">',
    "comment": "<!--<script>window.owned = 1",
    "attribute": '" autofocus onfocus="window.owned=1" x="',
    "single": "' onmouseover='window.owned=1",
    "unquoted": " onclick=window.owned=1 ",
    "image": "<img src=https://example.org/x.png onerror=window.owned=1>",
    "svg": "<svg onload=window.owned=1><animate onbegin=window.owned=1>",
    "link": "javascript:window.owned=1//",
    "base": '<base href="https://example.org/"><meta http-equiv=refresh content="0;url=https://example.org">',
    "style": "</style><style>@import url(https://example.org/x.css); * { display: none }</style>",
    "template": "{{ 7 * 7 }}{% raw %}${7*7}#{7*7}",
    "expression": "datum.x || window.owned=1; constructor.constructor('window.owned=1')()",
    "prototype": "__proto__",
    "entity": "&lt;script&gt;&#60;b&#62;",
    "controls": "\x00\x1b[2J\u202egpj.exe\u2028\u2029\ud800\ufffe",
    "title": "</title></head><body onload=window.owned=1>",
    "cdata": "]]><script>window.owned=1</script><![CDATA[",
}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "details"),
    *("summary", "p", "b", "h1", "h2", "div", "span", "strong", "small", "i", "a", "ul", "li", "dl", "dt", "dd"),
    *("table", "thead", "tbody", "tr", "th", "td", "input", "select", "option", "output", "button", "figure"),
    *("figcaption", "noscript", "script"),
}


class Sieve(HTMLParser):
    """Everything in a page that is not the page's own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = self.metas = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.metas += tag == "meta"
        if tag not in ALLOWED:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "srcdoc", "autofocus", "formaction", "xlink:href"):
                self.found.append(f"{name}={value}")
            if name == "href" and not re.match(r"#|\./", value or ""):
                self.found.append(f"href={value}")
            if name == "style" and not re.fullmatch(r"(width:[\d.]+%|flex-grow:\d+)", value or ""):
                self.found.append(f"style={value}")


def check(page: bytes, *, charts: bool = True) -> None:
    """Prove that a page holds no tag, attribute or script but its own."""
    sieve = Sieve()
    text = page.decode("utf-8")
    sieve.feed(text)
    assert sieve.found == []
    assert (sieve.scripts, sieve.metas) == (3 if charts else 1, 5)
    assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in text.split("<script>", 1)[0])


def poisoned(value: Any, payload: str) -> Any:
    """The same values with every text replaced, keys included."""
    if isinstance(value, str):
        return f"{value}{payload}"
    if isinstance(value, dict):
        return {poisoned(key, payload): poisoned(item, payload) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, payload) for item in value]
    return value


def hostile_report(text: str) -> Report:
    """A report in which every text that comes from outside is an attack."""
    size = {"file_bytes": 400, "deflated_bytes": 300, "parameters": 100, "nonzero_parameters": 90}
    latency = {"median_ms": 2.0, "p95_ms": 3.0, "min_ms": 1.0, "runs": 9}
    figures = {"shape": [2, 2], "dtype": text, "bytes": 400, "parameters": 100, "macs": 4}
    candidates = [
        {
            "name": f"{text}{number}",
            "status": status,
            "reason": text,
            "size": size,
            "fidelity": {"top1_agreement": 0.9, "sqnr_db": 30.0 + number, "exact": False},
            "quality": {text: 0.9},
            "latency": {**latency, "speedup": {"value": 1.0 + number, "low": 0.9, "high": 3.1}},
        }
        for number, status in enumerate(("chosen", "tried", text))
    ]
    epoch = {"number": 1, "rate": 0.1, "train_loss": 1.0, "loss": 1.0, "quality": 0.9, "seconds": 1.0}
    training = {"epochs": [epoch], "best": 1, "rate": 0.1, "batch": 8, "metric": text, "loss": text}
    return Report(
        command=text,
        status="done",
        before=Side({"name": text, "bytes": 400, "sha256": text}, size, latency, {text: 0.9}),
        after=Side({"name": text, "bytes": 400, "sha256": text}, {**size, "file_bytes": 100}, latency, {text: 0.8}),
        method=text,
        speedup={"value": 1.0, "low": 0.9, "high": 1.1},
        fidelity={"top1_agreement": 0.9, "sqnr_db": 30.0, "exact": False},
        gates=[Gate(text, text, text, True)],
        candidates=candidates,
        selection_quality={text: 0.9},
        decisions=[Decision(f"{text}{i}", text, text, {"sqnr_db": 3.0, text: text}) for i in range(6)],
        layers=[
            {"name": f"{text}{i}", "op": text, "weights": [text], "before": figures, "after": figures}
            for i in range(6)
        ],
        history=[{**training, "stopped": text, "device": text, "samples": [1, 1], "notes": [text]}],
        normalisation=[Decision(text, text, text, {text: text})],
        audit={"integer": 1, "float": 1, "conversions": 1, "kernels": {text: 1, f"{text}2": 2}}
        | {"unfused": [{"node": text, "op": text, "reason": text}]},
        data={
            "selection": {"name": text, "path": text, "count": 2, "sha256": text, "notes": [text]},
            text: {"name": text, "count": 2, "sha256": text},
            f"{text}2": text,
        },
        notes=[text],
        config={text: text, "a": {text: [text]}, "b": {}},
        origins={text: text},
        machine={text: text, "versions": {text: text, "modelkit": text}},
    )


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_hostile_texts_are_texts(payload: str) -> None:
    check(render(hostile_report(payload)))


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_hostile_texts_in_an_index_are_texts(payload: str) -> None:
    figures = {"before_bytes": 4, "after_bytes": 1, "method": payload, "speedup": None, "metric": payload}
    figures |= {"quality_before": 0.5, "quality_after": 0.5}
    rows = [
        Row(payload, "done", payload, figures, page=f"{payload}.html"),
        Row(f"javascript:{payload}", "done", None, figures, page=f"javascript:alert(1){payload}"),
        Row(f"//example.org/{payload}", payload, reason=payload, hint=payload, page="//example.org/x.html"),
    ]
    check(render(Summary(payload, rows, [payload], {payload: payload}, 1.0, payload)), charts=False)


def test_a_link_stays_in_the_folder() -> None:
    rows = [
        Row("m", "done", page=page) for page in ("javascript:alert(1).html", "//example.org/x", "data:text/html,x")
    ]
    links = re.findall(r'href="(\./[^"]*)"', render(Summary("inspect", rows)).decode())
    assert links == ["./javascript%3Aalert%281%29.html", ".///example.org/x", "./data%3Atext/html%2Cx"]


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_any_text_is_a_text(text: str) -> None:
    check(render(hostile_report(text)))


@pytest.mark.parametrize("name", ["script", "end of json", "attribute", "expression", "prototype", "controls"])
def test_browser_obeys_nothing(browse: Callable[..., Any], tmp_path: Path, name: str) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(render(hostile_report(PAYLOADS[name])))
    opened = browse(path)
    page = opened.page
    page.locator("#layers tbody tr").first.hover()
    page.locator("#layer-chart .mark-rect.role-mark path").first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible", timeout=3000)
    page.locator("#layers th button").nth(1).click()
    page.fill("#layers input", PAYLOADS[name].replace("\x00", "").replace("\ud800", "")[:9])
    page.wait_for_timeout(100)
    assert page.evaluate("window.owned") is None
    assert opened.dialogs == [] and opened.errors == [] and opened.requests == [path.as_uri()]
    assert page.query_selector("#vg-tooltip-element img, #vg-tooltip-element script, #vg-tooltip-element svg") is None


def test_a_script_that_got_in_would_not_run(browse: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    hole = b'<img src=x onerror="window.owned=1"><script>window.owned=1</script><a href="javascript:window.owned=1">'
    path.write_bytes(render(hostile_report("x")).replace(b"<main>", b"<main>" + hole))
    opened = browse(path)
    assert opened.page.evaluate("window.owned") is None
    assert not any("example" in url or url.startswith("http") for url in opened.requests)


def hostile_model(path: Path, text: str) -> None:
    """A model that runs and has the text wherever a name can be."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((16, 32)).astype("f4")
    nodes = [helper.make_node("MatMul", [f"{text} in", f"{text} w"], [f"{text} out"], name=f"{text} node")]
    graph = helper.make_graph(
        nodes,
        text,
        [helper.make_tensor_value_info(f"{text} in", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info(f"{text} out", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(weight, f"{text} w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name=text), path)


@pytest.mark.parametrize("name", ["end of script", "end of json", "attribute"])
def test_hostile_models_through_the_command_line(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model = folder / "<img src=x onerror=alert(1)>'\"&.onnx"
    hostile_model(model, PAYLOADS[name])
    assert run(["inspect", str(model), "--html", "--quiet"]) == 0
    pages = [model.with_name(f"{model.stem}.inspection.html")]
    out = tmp_path / "out"
    quick = ["--mode", "weights", "--set", "measure.seconds=0.001", "--objective", "size", "--quiet"]
    assert run(["quantize", str(model), "-o", str(out / "<b>.onnx"), "--html", *quick]) in (0, 1)
    assert run(["evaluate", str(model), "--html", "--seconds", "0.001", "--quiet", "-o", str(out / "e.html")]) == 0
    pages += [out / "<b>.report.html", out / "e.html"]
    for page in pages:
        charts = page.name != "e.html"
        check(page.read_bytes(), charts=charts)
