"""Quantization-aware training beside post-training quantization of the same model, at 8, 4 and 2 bits a weight.

Run: python benchmarks/qat.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import SAMPLES, table, verdict, write_section
from prune import Sets, fashion

from modelkit.api import evaluate, quantize
from modelkit.errors import BudgetError
from modelkit.report.units import decibel, factor, percent, size

MODEL = SAMPLES / "fashion_cnn.onnx"
SEEDS = (0, 1, 2)
COUNT = 12_000
EPOCHS = 3
# Timed on the test samples below, all in one run.
SHARED: dict[str, Any] = {"mode": "static", "measure.seconds": 0.05}
POST_TRAINING: dict[str, dict[str, Any]] = {
    "post-training": {},
    "post-training, channels equalised": {"equalize": True},
    "post-training, what auto finds": {"mode": "auto"},
}
# Those with all layers in integers, as the trained form has them.
WHOLE = ("post-training", "post-training, channels equalised")
TRAINED: dict[str, Any] = {"qat.enabled": True, "qat.epochs": EPOCHS, "qat.threads": 1}


@dataclass(frozen=True)
class Found:
    """One artifact on the test images.

    Attributes:
        accuracy: Share of right classes.
        agreement: Share of the float model's classes.
        noise: Signal to noise of the outputs, in decibels.
        bytes: Size of the file.
        speedup: Latency of the float model over the artifact's, batch 1.
        method: What was chosen.
        seconds: Time that training took.
    """

    accuracy: float
    agreement: float
    noise: float
    bytes: int
    speedup: float
    method: str
    seconds: float


def measured(bits: int, seed: int, files: Sets, folder: Path) -> tuple[float, dict[str, Found]]:
    """Make all forms with one seed, and evaluate them side by side; also the float model's accuracy."""
    ways = {**POST_TRAINING, "trained": TRAINED}
    reports, paths = {}, {}
    for number, (way, config) in enumerate(ways.items()):
        target = folder / f"{bits}-{seed}-{number}.onnx"
        given = {**SHARED, "bits": bits, "seed": seed, **config}
        try:
            reports[way] = quantize(MODEL, output=target, data=files.train, test=files.test, config=given)
        except BudgetError:  # auto finds nothing within a point of the original
            continue
        paths[way] = target
    found = evaluate([MODEL, *paths.values()], data=files.test, config={"measure.seconds": 2.0})["models"]
    entries = dict(zip(paths, found[1:], strict=True))
    return found[0]["quality"]["accuracy"], {
        way: Found(
            accuracy=entry["quality"]["accuracy"],
            agreement=entry["fidelity"]["top1_agreement"],
            noise=entry["fidelity"]["sqnr_db"],
            bytes=entry["size"]["file_bytes"],
            speedup=entry["speedup"]["value"],
            method=reports[way].method,
            seconds=sum(sum(epoch["seconds"] for epoch in each["epochs"]) for each in reports[way].history),
        )
        for way, entry in entries.items()
    }


def spread(numbers: Sequence[float]) -> str:
    """Mean of shares and how far they lie apart, in percent."""
    return f"{percent(float(np.mean(numbers)))} [{100 * min(numbers):.2f}, {100 * max(numbers):.2f}]"


def row(bits: int, way: str, each: Sequence[Found]) -> tuple[object, ...]:
    """One form, all seeds, as a row of the table."""
    return (
        f"{bits} bits, {way}",
        spread([found.accuracy for found in each]),
        percent(float(np.mean([found.agreement for found in each]))),
        decibel(float(np.mean([found.noise for found in each]))),
        size(each[0].bytes),
        factor(float(np.median([found.speedup for found in each]))),
        ", ".join(dict.fromkeys(found.method for found in each)),
    )


def bar(bits: int, original: float, runs: Sequence[dict[str, Found]]) -> str:
    """What training gains over the better of the forms without it, seed by seed."""
    best = [max(run[way].accuracy for way in WHOLE) for run in runs]
    gained = [run["trained"].accuracy - other for run, other in zip(runs, best, strict=True)]
    met = all(gain >= min(0.01, original - other) - 1e-9 for gain, other in zip(gained, best, strict=True))

    def listed(shares: Sequence[float]) -> str:
        return ", ".join(f"{100 * share:.2f}" for share in shares)

    return (
        f"- {bits}-bit weights, 8-bit activations: 1 point better than the better of the two post-training forms "
        f"with all layers in integers, or by what these lost: by {listed(gained)} points where these lost "
        f"{listed([original - other for other in best])}: {verdict(met)}"
    )


def main() -> None:
    """Three seeds at each number of bits."""
    rows: list[tuple[object, ...]] = []
    bars: list[str] = []
    original = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = fashion(folder, count=COUNT)
        for bits in (8, 4, 2):
            runs = []
            for seed in SEEDS:
                original, found = measured(bits, seed, files, folder)
                runs.append(found)
                print(bits, seed, found, flush=True)
            ways = dict.fromkeys(way for run in runs for way in run)
            rows += [row(bits, way, [run[way] for run in runs if way in run]) for way in ways]
            bars.append(bar(bits, original, runs))
    head = ["form", "accuracy, mean [least, most]", "same class", "output SQNR", "file", "speed-up", "chosen"]
    told = (
        f"`fashion_cnn`, float: {percent(original)}. {COUNT:,} training images, of which each seed sets a tenth "
        f"apart to choose among candidates, and of the rest a tenth to choose among epochs; {EPOCHS} epochs, the "
        "learning rate found by trials, no labels in the loss. The 10,000 test images are looked at once, at the "
        "end. Speed-ups are of one image; 2-bit weights take the room of 4."
    )
    body = "\n".join(bars) + f"\n\n{told}\n\n" + table(head, rows)
    write_section("qat", "Quantization-aware training", "python benchmarks/qat.py", body)


if __name__ == "__main__":
    main()
