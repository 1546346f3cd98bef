"""Distilling: students of a residual network with all labels, few or none, a transformer, and steps per second.

Run: python benchmarks/distill.py [quarter] [eighth] [transformer] [speed]
Needs Debian's dataset-fashion-mnist, and for the transformer Django's translations (the extra `samples`).
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import SAMPLES, table, verdict, write_section

from modelkit.api import distill
from modelkit.report.report import Report
from modelkit.report.units import milliseconds, percent, size

sys.path.insert(0, str(SAMPLES))
IMAGES, FEW = 24_000, 2_400
SEEDS = (0, 1, 2)
# Everything else is as it comes. One thread gives the same numbers everywhere.
COMMON: dict[str, Any] = {"training.threads": 1, "training.device": "cpu", "measure.seconds": 1.0}
CNN = {**COMMON, "structure.target": "macs", "training.epochs": 6}


def fashion(folder: Path) -> dict[str, Path]:
    """Fashion-MNIST as files: images with all labels, with a tenth of them, without any; and the test images."""
    import data

    whole = data.fashion()
    rows = np.random.default_rng(0).permutation(len(whole.train.y))[:IMAGES]
    x, y = whole.train.x[rows], whole.train.y[rows]
    sets = {
        "all": {"image": x, "labels": y},
        "few": {"image": x[:FEW], "labels": y[:FEW]},
        "rest": {"image": x[FEW:]},
        "none": {"image": x},
        "test": {"image": whole.test.x, "labels": whole.test.y},
    }
    for name, arrays in sets.items():
        np.savez(folder / f"{name}.npz", **arrays)
    return {name: folder / f"{name}.npz" for name in sets}


def runs(ratio: float, files: dict[str, Path], folder: Path) -> dict[str, list[Report]]:
    """A student of some share of the multiply-accumulates, by what labels there are, once for each seed."""
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "all labels": ("all", {}),
        "a tenth of the labels": ("few", {"unlabelled": str(files["rest"])}),
        "no labels": ("none", {"baseline": False}),
    }
    found: dict[str, list[Report]] = {}
    for name, (source, more) in ways.items():
        for seed in SEEDS:
            config = {**CNN, "ratio": ratio, "seed": seed, **more}
            given = {"data": files[source], "test": files["test"], "config": config}
            report = distill(SAMPLES / "fashion_cnn.onnx", output=folder / "student.onnx", force=True, **given)
            found.setdefault(name, []).append(report)
            print(name, seed, accuracy(report), alone(report) if report.beside else "", flush=True)
    return found


def accuracy(report: Report) -> float:
    """Of the distilled student, on the test samples."""
    assert report.after.quality is not None
    return float(report.after.quality["accuracy"])


def alone(report: Report) -> float:
    """Of the same student trained without the teacher."""
    return float(report.beside[0]["quality"]["accuracy"])


def cnn(part: str, ratio: float, title: str) -> None:
    """Students at one size, with the bars that belong to it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = runs(ratio, fashion(folder), folder)
    first = found["all labels"][0]
    assert first.before.quality is not None and first.before.latency is not None and first.after.latency is not None
    teacher = float(first.before.quality["accuracy"])
    taught = {name: [accuracy(report) for report in reports] for name, reports in found.items()}
    lone = {name: [alone(report) for report in reports] for name, reports in found.items() if reports[0].beside}
    margin = {name: np.mean(taught[name]) - np.mean(lone[name]) for name in lone}
    spread = max(np.ptp(values) for values in (taught["all labels"], lone["all labels"]))
    few, free = margin["a tenth of the labels"], np.mean(taught["all labels"]) - np.mean(taught["no labels"])
    lost = teacher - float(np.mean(taught["all labels"]))
    bars = [
        f"- Distilled beats trained alone by more than the spread of the seeds, with all labels: "
        f"{points(margin['all labels'])}, spread {100 * spread:.2f}: {verdict(margin['all labels'] > spread)}",
        f"- By 2 points or more with a tenth of the labels: {points(few)}: {verdict(few >= 0.02)}",
        f"- Without labels within 0.5 points of the labelled one: {points(-free)}: {verdict(free <= 0.005)}",
    ]
    if ratio == 0.25:
        bars.append(f"- Within 1 point of the teacher: {points(-lost)}: {verdict(lost <= 0.01)}")
    rows = [("teacher", percent(teacher), "", size(first.before.size["file_bytes"]), latency(first.before.latency))]
    made = size(first.after.size["file_bytes"]), latency(first.after.latency)
    for name in found:
        if name in lone:
            rows.append((f"student alone, {name}", percent(np.mean(lone[name])), seeds(lone[name]), *made))
        rows.append((f"distilled, {name}", percent(np.mean(taught[name])), seeds(taught[name]), *made))
    share = first.after.size["macs"] / first.before.size["macs"]
    told = (
        f"The sample CNN on Fashion-MNIST; the student has {percent(share)} of its multiply-accumulates and starts "
        f"from its cut and repaired weights, alone and distilled alike. {IMAGES:,} training images, a tenth of which "
        f"keep their labels in the second pair (the teacher answers for the others; the student alone makes as many "
        f"steps on the {FEW:,} that are left). {CNN['training.epochs']} epochs, all else as it comes; 10,000 test "
        "images. Means over three seeds."
    )
    head = ["model", "accuracy", "each seed", "size", "latency, batch 1"]
    write_section(f"distill-{part}", title, command(part), "\n".join(bars) + f"\n\n{told}\n\n" + table(head, rows))


def transformer() -> None:
    """The language transformer at half of its width."""
    import data

    whole, _ = data.languages()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "train.npz", tokens=whole.train.x, labels=whole.train.y)
        np.savez(folder / "test.npz", tokens=whole.test.x, labels=whole.test.y)
        given = {"data": folder / "train.npz", "test": folder / "test.npz"}
        model, reports = SAMPLES / "language_transformer.onnx", []
        for seed in SEEDS:
            config = {**COMMON, "ratio": 0.5, "training.epochs": 12, "seed": seed}
            reports.append(distill(model, output=folder / "half.onnx", force=True, config=config, **given))
            print("transformer", seed, accuracy(reports[-1]), alone(reports[-1]), flush=True)
    first = reports[0]
    assert first.before.quality is not None and first.before.latency is not None and first.after.latency is not None
    teacher = float(first.before.quality["accuracy"])
    taught, lone = [accuracy(report) for report in reports], [alone(report) for report in reports]
    lost = teacher - float(np.mean(taught))
    bar = f"- Half of the layers' width within 1 point of the teacher: {points(-lost)}: {verdict(lost <= 0.01)}"
    made = size(first.after.size["file_bytes"]), latency(first.after.latency)
    rows = [
        ("teacher", percent(teacher), "", size(first.before.size["file_bytes"]), latency(first.before.latency)),
        ("student alone", percent(np.mean(lone)), seeds(lone), *made),
        ("distilled", percent(np.mean(taught)), seeds(taught), *made),
    ]
    told = f"`language_transformer` with half of its channels; {len(whole.train.y):,} texts, 12 epochs, three seeds."
    head = ["model", "accuracy", "each seed", "size", "latency, batch 1"]
    body = f"{bar}\n\n{told}\n\n" + table(head, rows)
    write_section("distill-transformer", "A transformer at half of its width", command("transformer"), body)


def speed() -> None:
    """Steps per second of an epoch of distillation, against a loop by hand over the same layers in torch."""
    import data
    import nets
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    split = data.fashion().train.take(8_000, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "train.npz", image=split.x, labels=split.y)
        config = {**COMMON, "ratio": 1, "training.epochs": 4, "training.batch": 64, "training.learning_rate": 1e-4}
        config |= {"baseline": False, "training.validation": 0, "measure.seconds": 0.1, "training.patience": 0}
        given = {"data": folder / "train.npz", "test": folder / "train.npz", "config": config}
        given["test"] = SAMPLES / "fashion_cnn.eval.npz"
        ours, theirs = [], []
        for _ in range(3):  # one after the other in turn, so that a busy neighbour meets both
            report = distill(SAMPLES / "fashion_cnn.onnx", output=folder / "s.onnx", force=True, **given)
            [history] = report.history
            seconds = [epoch["seconds"] for epoch in history["epochs"][1:]]
            ours.append(history["steps"] / len(seconds) / min(seconds))
            theirs.append(by_hand(nets.FashionCnn(), split.x[: history["samples"][0]], split.y))
    ratio = max(ours) / max(theirs)
    bar = f"- Steps per second at least 0.85 of a loop by hand: {ratio:.2f}: {verdict(ratio >= 0.85)}"
    rows = [
        ("modelkit distill (labels and cached outputs of the teacher)", f"{max(ours):.1f}"),
        (
            "torch by hand (the same layers, BatchNormalization folded, the same loss, AdamW, clipping)",
            f"{max(theirs):.1f}",
        ),
    ]
    told = "The sample CNN itself, batches of 64, best of three runs each in turn."
    body = f"{bar}\n\n{told}\n\n" + table(["loop", "steps per second"], rows)
    write_section("distill-speed", "Steps of distillation per second", command("speed"), body)


def by_hand(net: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Steps per second of the best of four epochs in a loop of its own."""
    import torch
    from torch.nn import functional
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    folded(net.eval(), fuse_conv_bn_eval)
    net.train()
    images, labels = torch.from_numpy(x), torch.from_numpy(y[: len(x)])
    soft = torch.randn(len(x), 10)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    best, steps = float("inf"), -(-len(x) // 64)
    for _ in range(4):
        began = time.monotonic()
        for rows in torch.randperm(len(x)).tensor_split(steps):
            optimizer.zero_grad(set_to_none=True)
            logits = net(images[rows])
            wanted = functional.log_softmax(soft[rows] / 2, 1)
            own = functional.log_softmax(logits / 2, 1)
            kl = functional.kl_div(own, wanted, reduction="batchmean", log_target=True) * 4
            loss = 0.5 * functional.cross_entropy(logits, labels[rows]) + 0.5 * kl
            loss.backward()
            loss.item()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        best = min(best, time.monotonic() - began)
    return steps / best


def folded(net: Any, fuse: Callable[[Any, Any], Any]) -> None:
    """Fold each BatchNormalization into the convolution before it, as the graph has it."""
    from torch import nn

    names = list(net._modules)
    for name, after in itertools.pairwise(names):
        first, second = net._modules[name], net._modules[after]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            net._modules[name], net._modules[after] = fuse(first, second), nn.Identity()
    for child in net.children():
        folded(child, fuse)


def latency(found: dict[str, Any]) -> str:
    """The median."""
    return milliseconds(found["median_ms"])


def seeds(values: list[float]) -> str:
    """What each seed reached."""
    return ", ".join(f"{100 * value:.2f}" for value in values)


def points(share: float) -> str:
    """A difference of shares in points."""
    return f"{100 * share:+.2f} points"


def command(part: str) -> str:
    """What makes a section again."""
    return f"python benchmarks/distill.py {part}"


PARTS: dict[str, Callable[[], None]] = {
    "quarter": lambda: cnn("quarter", 0.25, "Students at a quarter of the multiply-accumulates"),
    "eighth": lambda: cnn("eighth", 0.125, "Students at an eighth of the multiply-accumulates"),
    "transformer": transformer,
    "speed": speed,
}


def main() -> None:
    """Measure the parts that are named, or all."""
    for name in sys.argv[1:] or list(PARTS):
        PARTS[name]()


if __name__ == "__main__":
    main()
