"""Quantization-aware training beside post-training quantization of the same model, at 8, 4 and 2 bits a weight.

Run: python benchmarks/qat.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
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
# Less than this, ten of the test images, is luck.
LOSS_THAT_SHOWS = 0.001
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

    def listed(numbers: Sequence[float]) -> str:
        return ", ".join(f"{number:.2f}" for number in numbers)

    best = [max(run[way].accuracy for way in WHOLE) for run in runs]
    gained = [run["trained"].accuracy - other for run, other in zip(runs, best, strict=True)]
    lost = [original - other for other in best]
    nearer = [run["trained"].noise - max(run[way].noise for way in WHOLE) for run in runs]
    if max(lost) < LOSS_THAT_SHOWS:
        return (
            f"- {bits}-bit weights: post-training quantization loses nothing that the test images could show; "
            f"training brings the outputs nearer to the original's by {listed(nearer)} dB."
        )
    met = all(gain >= min(0.01, loss) for gain, loss in zip(gained, lost, strict=True))
    return (
        f"- {bits}-bit weights: 1 point better than the better of the two post-training forms with all layers in "
        f"integers, or by what these lost: by {listed([100 * gain for gain in gained])} points where these lost "
        f"{listed([100 * loss for loss in lost])}: {verdict(met)}"
    )


def write(original: float, found: Mapping[int, Sequence[dict[str, Found]]]) -> None:
    """Write the section.

    Args:
        original: Accuracy of the float model.
        found: For each number of bits what each seed came to, by form.
    """
    rows: list[tuple[object, ...]] = []
    for bits, runs in found.items():
        ways = dict.fromkeys(way for run in runs for way in run)
        rows += [row(bits, way, [run[way] for run in runs if way in run]) for way in ways]
    bars = [bar(bits, original, runs) for bits, runs in found.items()]
    head = ["form", "accuracy, mean [least, most]", "same class", "output SQNR", "file", "speed-up", "chosen"]
    told = (
        f"`fashion_cnn`, float: {percent(original)}; activations have 8 bits, and integer kernels do the work. "
        f"{COUNT:,} training images, of which each seed sets a tenth apart to choose among candidates, and of the "
        f"rest a tenth to choose among epochs; {EPOCHS} epochs, the learning rate found by trials, no labels in the "
        "loss. The 10,000 test images are looked at once, at the end. Speed-ups are of one image; 2-bit weights take "
        "the room of 4."
    )
    body = "\n".join(bars) + f"\n\n{told}\n\n" + table(head, rows)
    write_section("qat", "Quantization-aware training", "python benchmarks/qat.py", body)


def main() -> None:
    """Three seeds at each number of bits."""
    original = 0.0
    found: dict[int, list[dict[str, Found]]] = {bits: [] for bits in (8, 4, 2)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = fashion(folder, count=COUNT)
        for bits, runs in found.items():
            for seed in SEEDS:
                original, ways = measured(bits, seed, files, folder)
                runs.append(ways)
                print(bits, seed, ways, flush=True)
    write(original, found)


if __name__ == "__main__":
    main()
