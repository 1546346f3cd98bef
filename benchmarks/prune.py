"""Pruning: channels of a residual network beside Torch-Pruning, and single weights by each method.

Run: python sample_models/make.py article_cnn && pip install --no-deps torch-pruning==1.6.1
     python benchmarks/prune.py [channels] [weights] [samples] [lenet] [corpus]
The part lenet needs MNIST: mnist_train.npz and mnist_test.npz (arrays x and y) in the folder that MNIST names.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from harness import SAMPLES, table, verdict, write_section
from lenets import mnist, moved, train_lenet_300_100
from onnx import numpy_helper

from modelkit.api import evaluate, inspect, prune
from modelkit.report.units import factor, milliseconds, percent

sys.path.insert(0, str(SAMPLES))
CALIBRATION = 256
# The rate is searched for where it is not given; one thread gives the same numbers everywhere.
TRAINING: dict[str, Any] = {"finetune.threads": 1}


@dataclass(frozen=True)
class Sets:
    """Data of a sample as files.

    Attributes:
        calibration: 256 inputs of the training part, no labels.
        train: The whole training part, labelled.
        test: The whole test part, labelled.
    """

    calibration: Path
    train: Path
    test: Path


def sets(name: str, folder: Path, x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> Sets:
    """Write the three files; calibration inputs are drawn from the training part with a fixed seed."""
    rows = np.sort(np.random.default_rng(0).permutation(len(x))[:CALIBRATION])
    found = Sets(*(folder / f"{part}.npz" for part in ("calibration", "train", "test")))
    np.savez(found.calibration, **{name: x[rows]})
    np.savez(found.train, **{name: x}, labels=y)
    np.savez(found.test, **{name: test_x}, labels=test_y)
    return found


def fashion(folder: Path, *, padded: bool = False, count: int | None = None) -> Sets:
    """Fashion-MNIST as the sample models see it, with all or some of its training images."""
    import data

    split = data.fashion()
    train = split.train if count is None else split.train.take(count, 3)
    train, test = (data.padded(part) if padded else part for part in (train, split.test))
    return sets("image", folder, train.x, train.y, test.x, test.y)


def macs(path: Path) -> int:
    """Multiply-accumulates of one sample."""
    return int(inspect(path)["facts"]["macs"])


def channels() -> None:
    """Half of the MACs of the residual network, one shot, 256 unlabelled inputs; then three epochs of training."""
    import pruning_peers

    model = SAMPLES / "fashion_cnn.onnx"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = fashion(folder)
        images = np.load(files.calibration)["image"]
        half = {"channels": 0.5, "structure.target": "macs", "measure.seconds": 1.0}
        plain = {**half, "structure.importance": "l2", "structure.ranking": "equal"}
        ours: list[tuple[str, dict[str, Any], Path | None]] = [
            ("modelkit, as it comes", half, files.calibration),
            ("modelkit, as it comes, not repaired", {**half, "structure.repair": "none"}, files.calibration),
            ("modelkit, L2 magnitude, equal shares, no data", {**plain, "structure.repair": "none"}, None),
            ("modelkit, L2 magnitude, equal shares, repaired", plain, files.calibration),
            ("modelkit, 3 epochs of fine-tuning", {**half, **TRAINING, "finetune.epochs": 3}, files.train),
        ]
        rows: list[tuple[str, Path]] = [("original", model)]
        for number, (label, config, data) in enumerate(ours):
            target = folder / f"ours-{number}.onnx"
            prune(model, output=target, data=data, config=config)
            rows.append((label, target))
        rows += [(label, path) for label, path, _ in pruning_peers.torch_pruning(0.5, images, folder)]
        found = evaluate([path for _, path in rows], data=files.test, config={"measure.seconds": 6.0})["models"]
        base = macs(model)
        lines = []
        for (label, path), entry in zip(rows, found, strict=True):
            ratio = entry["speedup"]
            lines.append(
                (
                    label,
                    percent(1 - macs(path) / base),
                    percent(entry["quality"]["accuracy"]),
                    milliseconds(entry["latency"]["median_ms"]),
                    f"{factor(ratio['value'])} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "1",
                )
            )
        accuracy = {label: entry["quality"]["accuracy"] for (label, _), entry in zip(rows, found, strict=True)}
        time = {label: entry["latency"]["median_ms"] for (label, _), entry in zip(rows, found, strict=True)}
    original, ours_now = accuracy["original"], accuracy["modelkit, as it comes"]
    tuned = accuracy["modelkit, 3 epochs of fine-tuning"]
    peers = {label: value for label, value in accuracy.items() if label.startswith("Torch-Pruning")}
    as_shipped = max(value for label, value in peers.items() if "re-estimated" not in label)
    repaired = max(value for label, value in peers.items() if "re-estimated" in label)
    share = time["modelkit, as it comes"] / time["original"]
    bars = [
        f"- One shot within 5 points of the original: {points(original - ours_now)} lost: "
        f"{verdict(original - ours_now <= 0.05)}",
        f"- Torch-Pruning's one shot beaten by 10 points: by {points(ours_now - as_shipped)}: "
        f"{verdict(ours_now - as_shipped >= 0.1)} (by {points(ours_now - repaired)} where its BatchNorm is "
        "re-estimated from the same inputs)",
        f"- Within 1 point after 3 epochs: {points(original - tuned)} lost: {verdict(original - tuned <= 0.01)}",
        f"- Latency at half the MACs at most 0.65 of the original: {share:.2f}: {verdict(share <= 0.65)}",
    ]
    head = ["model", "MACs removed", "accuracy (10,000 test images)", "latency, batch 1", "speed-up [95 %]"]
    body = "\n".join(bars) + "\n\n" + table(head, lines)
    write_section("prune-channels", "Channels of a residual network, half of the MACs", command("channels"), body)


def weights() -> None:
    """Single weights of the article's network: 80 % in one shot by each method, 90 % with training."""
    model = SAMPLES / "made" / "article_cnn.onnx"
    if not model.exists():
        sys.exit(f"{model} is missing: run python sample_models/make.py article_cnn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = fashion(folder, padded=True, count=24_000)
        rows: list[tuple[str, Path]] = [("original", model)]
        shot = {"sparsity": 0.8, "measure.seconds": 0.2}
        tuned = {"sparsity": 0.9, "steps": 3, **TRAINING, "finetune.epochs": 5, "measure.seconds": 0.2}
        for label, config, source in (
            ("80 %, magnitude", {**shot, "method": "magnitude"}, None),
            ("80 %, wanda", {**shot, "method": "wanda"}, files.calibration),
            ("80 %, obs", {**shot, "method": "obs"}, files.calibration),
            ("90 %, magnitude, not fine-tuned", {**shot, "sparsity": 0.9, "method": "magnitude"}, None),
            ("90 %, fine-tuned", tuned, files.train),
        ):
            target = folder / f"{len(rows)}.onnx"
            prune(model, output=target, data=source, config=config)
            rows.append((label, target))
        found = evaluate([path for _, path in rows], data=files.test, config={"measure.seconds": 1.0})["models"]
        accuracy = {label: entry["quality"]["accuracy"] for (label, _), entry in zip(rows, found, strict=True)}
        lines = [
            (label, percent(zeros(entry)), percent(accuracy[label]), points(accuracy[label] - accuracy["original"]))
            for (label, _), entry in zip(rows, found, strict=True)
        ]
    by = [accuracy[f"80 %, {method}"] for method in ("obs", "wanda", "magnitude")]
    lost = accuracy["original"] - accuracy["90 %, fine-tuned"]
    bars = [
        f"- 80 % in one shot, obs above wanda above magnitude: {verdict(by[0] > by[1] > by[2])}",
        f"- 90 % with fine-tuning within 0.5 points: {points(lost)} lost: {verdict(lost <= 0.005)}",
    ]
    body = "\n".join(bars) + "\n\n" + table(["model", "zeros", "accuracy", "change"], lines)
    write_section("prune-weights", "Single weights of the article's network", command("weights"), body)


def samples() -> None:
    """Every way on every shipped sample: accuracy after one shot, with its calibration inputs and without labels."""
    ways: dict[str, dict[str, Any]] = {
        "80 % magnitude": {"sparsity": 0.8, "method": "magnitude", "scope": "layer"},
        "80 % wanda": {"sparsity": 0.8, "method": "wanda", "scope": "layer"},
        "80 % obs": {"sparsity": 0.8, "method": "obs", "scope": "layer"},
        "80 % obs, global": {"sparsity": 0.8, "method": "obs", "scope": "global"},
        "2:4 magnitude": {"pattern": "2:4", "method": "magnitude"},
        "2:4 wanda": {"pattern": "2:4", "method": "wanda"},
        "2:4 obs": {"pattern": "2:4", "method": "obs"},
        **{
            f"half the MACs, {how}": {
                **{"channels": 0.5, "structure.target": "macs", "structure.importance": importance},
                **{"structure.ranking": ranking, "structure.repair": repair},
            }
            for how, importance, ranking, repair in (
                ("L2, equal, no repair", "l2", "equal", "none"),
                ("activation, equal, no repair", "activation", "equal", "none"),
                ("activation, equal, repaired", "activation", "equal", "least_squares"),
                ("reconstruction, equal, repaired", "reconstruction", "equal", "least_squares"),
                ("reconstruction, search, repaired", "reconstruction", "search", "least_squares"),
            )
        },
    }
    names = ("digits_mlp", "fashion_cnn", "language_transformer", "language_gru")
    columns: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sample in names:
            model, test = SAMPLES / f"{sample}.onnx", SAMPLES / f"{sample}.eval.npz"
            data = folder / f"{sample}.npz"
            np.savez(data, **{k: v for k, v in np.load(SAMPLES / f"{sample}.calib.npz").items() if k != "labels"})
            found = columns[sample] = {}
            for way, config in ways.items():
                target = folder / "artifact.onnx"
                given = {"data": data, "test": test, "config": {**config, "measure.seconds": 0.05}}
                report = prune(model, output=target, force=True, **given)
                assert report.before.quality is not None and report.after.quality is not None
                found["original"] = percent(report.before.quality["accuracy"])
                found[way] = percent(report.after.quality["accuracy"])
    rows = [(way, *(columns[sample][way] for sample in names)) for way in ("original", *ways)]
    body = (
        "Accuracy on the evaluation sets after one shot; 384 calibration inputs without labels, no training.\n\n"
        + table(["", *names], rows)
    )
    write_section("prune-samples", "Ways of pruning, on every sample", command("samples"), body)


def lenet() -> None:
    """LeNet-300-100 on MNIST: trained densely, then 95 % of its weights taken out while it trains on."""
    (x, y), (test_x, test_y) = mnist("train"), mnist("test")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
        wider = np.concatenate([moved(x, *move) for move in moves])
        files = sets("image", folder, wider, np.tile(y, len(moves)), test_x, test_y)
        dense = folder / "lenet_300_100.onnx"
        train_lenet_300_100(x, y, dense)
        config = {
            **{"sparsity": 0.95, "method": "magnitude", "scope": "global", "steps": 7},
            **{**TRAINING, "finetune.epochs": 12, "finetune.batch": 128, "finetune.learning_rate": 0.002},
            **{"finetune.patience": 0, "measure.seconds": 0.2},
        }
        sparse = folder / "sparse.onnx"
        prune(dense, output=sparse, data=files.train, config=config)
        found = evaluate([dense, sparse], data=files.test, config={"measure.seconds": 1.0})["models"]
        lines = [
            (label, percent(zeros(entry)), percent(1 - entry["quality"]["accuracy"]))
            for label, entry in zip(("dense", "pruned"), found, strict=True)
        ]
        error, share = 1 - found[1]["quality"]["accuracy"], weight_zeros(sparse)
    bar = (
        f"- 95 % sparse at most 1.7 % test error: {percent(share)} of the weights are zero, "
        f"{percent(error)}: {verdict(error <= 0.017 and round(share, 4) >= 0.95)}"
    )
    told = (
        "Both are trained on the training images and on copies of them moved by one pixel. The settings were chosen "
        "on 10,000 training images that were held out; the test images were looked at once."
    )
    write_section(
        "prune-lenet",
        "LeNet-300-100 on MNIST",
        "MNIST=folder python benchmarks/prune.py lenet",
        bar + f"\n\n{told}\n\n" + table(["model", "zeros", "test error"], lines),
    )


def foreign() -> None:
    """Models that are not ours: onnx's backend data, and every awkward twin of the samples."""
    import corpus

    modes = [mode for mode in corpus.MODES if mode.startswith("prune")]
    counts: dict[str, Counter[str]] = {mode: Counter() for mode in modes}
    reasons: Counter[str] = Counter()
    paths = list(corpus.corpus([], False, ""))
    for path in paths:
        for mode in modes:
            if "repaired" in mode and "light" in path.parts:
                continue  # minutes each, for weights that are random numbers
            outcome = corpus.apart(path, mode)
            counts[mode][outcome.status] += 1
            if outcome.status in ("refused", "crash"):
                reasons[outcome.detail.split(":")[0][:90]] += 1
    states = ("works", "idle", "refused", "crash")
    rows = [(mode, *(found[state] for state in states)) for mode, found in counts.items()]
    crashes = sum(found["crash"] for found in counts.values())
    told = "\n".join(f"- {count} times: {reason}" for reason, count in reasons.most_common(8))
    body = (
        f"- Each of {len(paths)} models is pruned and runs, or is refused with a reason: {crashes} crashes: "
        f"{verdict(not crashes)}\n\n{table(['mode', *states], rows)}\n\n*idle*: nothing in it could be pruned, and "
        f"the decisions say why. The large nets of onnx's data are not repaired: their weights are "
        f"random numbers. Most refusals:\n\n{told}"
    )
    write_section("prune-corpus", "Pruning models that are not ours", command("corpus"), body)


def zeros(entry: dict[str, Any]) -> float:
    """Share of zeros among a model's parameters."""
    size = entry["size"]
    return 1 - size["nonzero_parameters"] / max(size["parameters"], 1)


def weight_zeros(path: Path) -> float:
    """Share of zeros among the weights of a model, biases left out."""
    weights = [numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer if len(each.dims) > 1]
    return sum(int((each == 0).sum()) for each in weights) / sum(each.size for each in weights)


def points(share: float) -> str:
    """A difference of shares in points."""
    return f"{100 * share:+.2f} points"


def command(part: str) -> str:
    """What makes a section again."""
    return f"python benchmarks/prune.py {part}"


PARTS: dict[str, Callable[[], None]] = {
    "channels": channels,
    "weights": weights,
    "samples": samples,
    "lenet": lenet,
    "corpus": foreign,
}


def main() -> None:
    """Measure the parts that are named, or all."""
    for name in sys.argv[1:] or list(PARTS):
        PARTS[name]()


if __name__ == "__main__":
    main()
