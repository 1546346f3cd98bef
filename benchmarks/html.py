"""How fast the page of a model of a thousand layers is made and drawn, and how large it is.

Run: python benchmarks/html.py (needs chromium and playwright).
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from harness import table, verdict, write_section
from onnx import TensorProto, helper, numpy_helper

from modelkit import api
from modelkit.report.html.page import render
from modelkit.report.report import Report
from modelkit.report.units import size

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
COUNTS = (100, 1000)
RUNS = 7
LIMIT_S, LIMIT_BYTES = 2.0, 1_500_000


def chain(path: Path, layers: int) -> Path:
    """A model of that many layers, of sizes that differ."""
    random = np.random.default_rng(0)
    widths = [16 * (1 + index % 4) for index in range(layers)] + [16]
    weights, nodes, value = [], [], "x"
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        array = (random.standard_normal((inputs, outputs)) / inputs**0.5).astype("f4")
        weights.append(numpy_helper.from_array(array, f"model.layers.{index}.weight"))
        name = f"/model/layers.{index}/MatMul"
        nodes += [helper.make_node("MatMul", [value, weights[-1].name], [f"h{index}"], name=name)]
        nodes += [helper.make_node("Tanh", [f"h{index}"], [f"t{index}"], name=f"/model/layers.{index}/Tanh")]
        value = f"t{index}"
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
        for name, width in (("x", widths[0]), (value, widths[-1]))
    ]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def quantized(layers: int, folder: Path) -> Report:
    """The report of quantizing such a model."""
    model = chain(folder / f"chain{layers}.onnx", layers)
    config = {"mode": "weights", "objective": "size", "measure.seconds": 0.05}
    return api.quantize(model, config=config, force=True)


def drawn(browser: Any, page: Path) -> tuple[list[float], list[float]]:
    """Draw a page in fresh contexts.

    Returns:
        For each run the seconds from asking for it until its last chart is there, and those of them that its thread
        computed, which a busy machine does not change.
    """
    seconds, computed = [], []
    for _ in range(RUNS + 1):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        tab = context.new_page()
        session = context.new_cdp_session(tab)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        began = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-drawn]", state="attached")
        # Until it has been put on the screen too.
        tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seconds.append(time.perf_counter() - began)
        metrics = session.send("Performance.getMetrics")["metrics"]
        computed.append(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))
        context.close()
    return seconds[1:], computed[1:]


def main() -> None:
    """Measure and write the section."""
    path = shutil.which("chromium")
    if path is None:
        sys.exit("chromium is missing: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        rows, ok = [], True
        render(quantized(2, folder))  # bundles the runtime
        for count in COUNTS:
            report = quantized(count, folder)
            began = time.perf_counter()
            content = render(report)
            made = time.perf_counter() - began
            page = folder / f"page{count}.html"
            page.write_bytes(content)
            times, computed = drawn(browser, page)
            if count <= 1000:
                ok &= statistics.median(times) <= LIMIT_S
            ok &= len(content) < LIMIT_BYTES
            rows.append(
                (
                    f"{count:,}",
                    size(len(content)),
                    f"{1000 * made:.0f} ms",
                    f"{statistics.median(times):.2f} s",
                    f"{min(times):.2f} to {max(times):.2f} s",
                    f"{statistics.median(computed):.2f} s",
                )
            )
        version = browser.version
        browser.close()
    body = (
        f"Bar: the page of 1,000 layers is drawn within {LIMIT_S:.0f} s, and every page is below "
        f"{size(LIMIT_BYTES)}: {verdict(ok)}. "
        f"Chromium {version} without a window and without a GPU, from a file, until the last chart is on the screen, "
        f"{RUNS} runs. The first page of a process takes seconds more to make: the runtime of the charts is bundled "
        "then.\n\n" + table(["layers", "page", "made in", "drawn in, median", "spread", "computing"], rows)
    )
    write_section("html", "Pages of reports", "python benchmarks/html.py", body)


if __name__ == "__main__":
    main()
