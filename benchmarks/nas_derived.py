"""The space around a saved model against scaling all widths alike: fashion_cnn, the same training for every network.

    python benchmarks/nas_derived.py              # about 20 minutes on one core
    python benchmarks/nas_derived.py --trials 20  # a try

`modelkit nas` searches around the sample model as anybody would, with few samples and epochs. Its first
candidates are the uniformly scaled ones; each is put beside the best other one of the Pareto set that costs no
more. Both start from the model's weights, are repaired by least squares, and learn from the same samples for as many
epochs. Validation samples choose; the 10,000 test images are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import SAMPLES, table, verdict, write_section

from modelkit import api
from modelkit.nas.pareto import unbeaten

MODEL = SAMPLES / "fashion_cnn.onnx"
TRAINING, VALIDATION = 3000, 1500
SHARES = [0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _samples(folder, options.test)
        config = {
            "trials": options.trials,
            "training.epochs": options.epochs,
            "training.learning_rate": 0.002,
            "validation": VALIDATION / (TRAINING + VALIDATION),
            "derived.widths": SHARES,
            "timing.seconds": 0.05,
        }
        report = _nas(folder, "search", config)
        uniform = [_again(folder, trial, report, config) for trial in report["trials"] if trial["source"] == "given"]
    command = f"python benchmarks/nas_derived.py --trials {options.trials} --epochs {options.epochs}"
    body = _body(report, uniform, options, time.monotonic() - began)
    write_section("nas_derived", "Searching around a saved model", command, body)


def _samples(folder: Path, count: int) -> None:
    sys.path.insert(0, str(SAMPLES))
    import data

    fashion = data.fashion()
    train, test = fashion.train.take(TRAINING + VALIDATION, seed=1), fashion.test.take(count, seed=1)
    for name, split in (("train", train), ("test", test)):
        np.savez(folder / f"{name}.npz", image=split.x, labels=split.y)


def _nas(folder: Path, name: str, config: dict[str, Any]) -> dict[str, Any]:
    def told(stage: str, done: float, total: float) -> None:
        if "trials" in stage:
            print(f"\r{stage}, {100 * done / total:.0f} %", end="", file=sys.stderr)

    return api.nas(
        folder / "train.npz",
        model=MODEL,
        output=folder / f"{name}.onnx",
        test=folder / "test.npz",
        config=config,
        progress=told,
    )


def _again(folder: Path, trial: dict[str, Any], report: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """A uniformly scaled network with its figures on the test samples: built again where it is not of the set."""
    for each in report["pareto"]:
        if each["trial"] == trial["trial"]:
            return dict(each)
    again = _nas(folder, f"uniform{trial['trial']}", {**config, "space": trial["document"]})
    assert again["best"]["quality"] == trial["quality"], "the same network was trained to something else"
    return {**again["best"], "trial": trial["trial"]}


def _body(report: dict[str, Any], uniform: list[dict[str, Any]], options: Any, seconds: float) -> str:
    whole = max(each["macs"] for each in uniform)
    found = [each for each in report["pareto"] if each["source"] != "given"]
    rows, gains = [], {}
    for each in sorted(uniform, key=lambda e: e["macs"]):
        inside = [other for other in found if other["macs"] <= each["macs"]]
        if not inside:
            continue
        best = max(inside, key=lambda other: other["quality"])
        gain = gains[each["macs"] / whole] = 100 * (best["test"]["accuracy"] - each["test"]["accuracy"])
        cells = [f"{cell['macs'] / whole:.3f} | {100 * cell['test']['accuracy']:.2f} %" for cell in (each, best)]
        rows.append([*cells, f"{gain:+.2f}"])
    inside = [each for each in report["pareto"] if 0.125 <= each["macs"] / whole <= 1]
    points = np.array([[1 - each["test"]["accuracy"], each["macs"]] for each in inside])
    ahead = [f"{share:.3f}" for share, gain in gains.items() if gain >= 1]
    head = ["MACs, uniform | test accuracy", "MACs, searched | test accuracy", "points"]
    return "\n".join(
        [
            f"`fashion_cnn.onnx`, {TRAINING} training and {VALIDATION} validation images, {options.epochs} epochs "
            f"for each of {len(report['trials'])} networks, {seconds / 60:.0f} minutes; test accuracy on "
            f"{options.test} images. MACs as shares of the original's.",
            "",
            table([cell for each in head for cell in each.split(" | ")], rows),
            "",
            f"At least 1 point better than uniform scaling at equal MACs (at {', '.join(ahead) or 'none'}): "
            f"{verdict(bool(ahead))}.",
            "",
            f"Pareto set from 1/8 of the MACs to all: {len(inside)} networks, {int(unbeaten(points).sum())} of "
            f"them unbeaten on the test images too; at least 8: {verdict(len(inside) >= 8)}.",
        ]
    )


if __name__ == "__main__":
    main()
