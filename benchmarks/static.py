"""Static int8 of a ResNet-18, side by side with the float original and other tools.

Run: python sample_models/make.py resnet18 && python benchmarks/static.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness import SAMPLES, table, verdict, write_section
from peak import Peak, measure_peak
from tools import static_tools

from modelkit.api import evaluate, inspect
from modelkit.quantize.audit import audit
from modelkit.report.units import decibel, factor, milliseconds, percent, size

MIN_SPEEDUP = 4.0


def main() -> None:
    """Measure and write the section."""
    model, data = SAMPLES / "made" / "resnet18.onnx", SAMPLES / "made" / "resnet18.calib.npz"
    test = SAMPLES / "made" / "resnet18.eval.npz"
    if not model.exists():
        sys.exit(f"{model} is missing: run python sample_models/make.py resnet18")
    rows = []
    bar = ceiling = ""
    with tempfile.TemporaryDirectory() as folder:
        paths, seconds, names = [model], [0.0], ["original"]
        for index, tool in enumerate(static_tools()):
            target = Path(folder) / f"{index}.onnx"
            seconds.append(tool.timed(model, data, target))
            paths.append(target)
            names.append(tool.name)
        peak = measure_peak()
        found = evaluate(paths, data=test, config={"measure.seconds": 8.0})
        for name, path, took, entry in zip(names, paths, seconds, found["models"], strict=True):
            kernels = audit(path)
            ratio = entry["speedup"]
            fidelity = entry["fidelity"] or {}
            rows.append(
                (
                    name,
                    size(entry["size"]["file_bytes"]),
                    milliseconds(entry["latency"]["median_ms"]),
                    f"{factor(ratio['value'])} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "1",
                    percent(entry["quality"]["accuracy"]) if entry["quality"] else "-",
                    percent(fidelity.get("top1_agreement")),
                    decibel(fidelity.get("sqnr_db")),
                    f"{kernels['integer']} / {kernels['float']}",
                    f"{took:.0f} s" if took else "",
                )
            )
            if name.startswith("modelkit"):
                ok = ratio["value"] >= MIN_SPEEDUP and kernels["float"] == 0
                bar = (
                    f"Bar: at least {MIN_SPEEDUP:.0f}x faster than float, every Conv and Gemm in an integer kernel: "
                    f"{factor(ratio['value'])}, {kernels['float']} float layers: {verdict(ok)}."
                )
                ceiling = _ceiling(peak, model, found["models"][0]["latency"], entry["latency"])
    head = [
        "model",
        "size",
        "latency",
        "speed-up [95 %]",
        "accuracy",
        "same labels",
        "SQNR",
        "integer / float layers",
        "tool time",
    ]
    write_section(
        "static",
        "Static int8, ResNet-18 at 224 x 224",
        "python benchmarks/static.py",
        f"{bar}\n\n{table(head, rows)}\n\n{ceiling}",
    )


def _ceiling(peak: Peak, model: Path, before: dict[str, float], after: dict[str, float]) -> str:
    """Set what the network reached against what the kernels reach at best."""
    billions = inspect(model)["facts"]["macs"] / 1e9
    floats, integers = (1000 * billions / entry["median_ms"] for entry in (before, after))
    return (
        f"What is possible here: a stack of nothing but 3x3 convolutions runs at {peak.floats:.0f} GMAC/s in float "
        f"and {peak.integers:.0f} in integers, {peak.ratio:.2f}x. This network, {billions:.2f} GMAC, runs at "
        f"{floats:.0f} and {integers:.0f}. An instruction of VNNI does four times the products of a float one, so "
        "where the float kernels are at their peak no network gets 4x. What is missing to the stack are the first "
        "convolution, whose windows of few channels fill no vector, and sums, pools and conversions."
    )


if __name__ == "__main__":
    main()
