"""Packed models: how small they are beside what they lost, how long sessions take to create, how fast they run.

Run: python sample_models/make.py article_cnn && python benchmarks/packing.py [sessions] [entropy] [samples]
     [lenet-300-100] [lenet-5] [article]
The parts with MNIST need mnist_train.npz and mnist_test.npz (arrays x and y) in the folder that MNIST names, or in
../shared/data; the dense nets are trained where they are not in sample_models/made. The session times are of models
that ship inside the package onnx, with seeded random weights, of which nine of ten are set to zero.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from corpus import dataset, read
from harness import SAMPLES, table, verdict, write_section
from lenets import jittered, made, mnist

from modelkit.api import compress, quantize
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.measure.latency import compare
from modelkit.pack.proven import pack_model
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights.sparse import prune_by_magnitude
from modelkit.report.report import Report
from modelkit.report.units import factor, percent, size
from modelkit.runtime import make_session, ready_run

MODELS = ("resnet50", "densenet121", "squeezenet")
EFFORTS = ("load", "auto", "size")
RUNS = 7
ALLOWED = 0.5
# Weights of fewer numbers are left out of the sums over what large tensors take.
LARGE = 10_000
# One thread gives the same numbers everywhere.
TRAINING: dict[str, Any] = {"pruning.threads": 1, "sharing.threads": 1, "measure.seconds": 0.2}


def sparse(name: str) -> ir.Model:
    """A model of the package onnx, nine of ten weights zero."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    model = read(path)
    normalise(model)
    prune_by_magnitude(model, PruneConfig(sparsity=0.9))
    return model


def sessions() -> None:
    """Sessions of each form, created in turn, and their run times, interleaved."""
    rows, slowest, longest = [], 0.0, 0.0
    for name in MODELS:
        with tempfile.TemporaryDirectory(prefix="packing-") as folder:
            model = sparse(name)
            inputs = next(iter(dataset(model).batches(1))).inputs
            files = {"plain": save(model, Path(folder) / "plain.onnx")[0]}
            for effort in EFFORTS:
                packed = model.clone()
                pack_model(packed, effort)
                files[effort] = save(packed, Path(folder) / f"{effort}.onnx")[0]
            created: dict[str, list[float]] = {kind: [] for kind in files}
            for _ in range(RUNS):
                for kind, file in files.items():
                    began = time.perf_counter()
                    make_session(file, threads=1)
                    created[kind].append(time.perf_counter() - began)
            runs = {kind: ready_run(make_session(file, threads=1), inputs, kind) for kind, file in files.items()}
            latency = compare(runs, baseline="plain", seconds=3.0, seed=0)
            for kind, file in files.items():
                ratio = latency.ratios[kind] if kind != "plain" else None
                said = "" if ratio is None else f"{1 / ratio.value:.2f}x [{1 / ratio.high:.2f}, {1 / ratio.low:.2f}]"
                spread = f"{min(created[kind]):.2f} to {max(created[kind]):.2f}"
                taken = size(file.stat().st_size)
                rows.append([name, kind, taken, f"{median(created[kind]):.2f} s", spread, said])
                if ratio is not None:
                    slowest = max(slowest, 1 / ratio.value)
            longest = max(longest, median(created["auto"]) - median(created["plain"]))
    body = (
        f"Bars: with `auto` a session is created at most {ALLOWED} s later: +{longest:.2f} s at most, "
        f"{verdict(longest <= ALLOWED)}. Run time at most 1.03 of the plain model's: {slowest:.2f}x at most, "
        f"{verdict(slowest <= 1.03)}. Medians of {RUNS} sessions, created in turn; run times are of one sample, "
        "interleaved, with their interval.\n\n"
    )
    body += table(["model", "form", "file", "session", "spread, s", "run time"], rows)
    write_section("packing", "Packed models", command("sessions"), body)


def entropy() -> None:
    """Bytes of large tensors beside their zero-order entropy: nine of ten weights zero, the others of few values."""
    rows, worst = [], dict.fromkeys(("load", "size"), 0.0)
    for name in ("densenet121", "squeezenet"):
        for steps in (127, 7):
            model = sparse(name)
            for value in model.graph.initializers.values():
                tensor = value.const_value
                if tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) > 1:
                    array = tensor.numpy()
                    step = np.float32(np.abs(array).max() / steps)
                    value.const_value = ir.tensor((np.round(array / step) * step).astype(np.float32), name=value.name)
            for effort in worst:
                packed = model.clone()
                decisions = pack_model(packed, effort)
                large = [
                    each.numbers for each in decisions if each.action == "packed" and each.numbers["numbers"] >= LARGE
                ]
                taken, floor = (sum(float(each[key]) for each in large) for key in ("bytes", "entropy_bytes"))
                worst[effort] = max(worst[effort], taken / floor)
                rows.append(
                    [
                        name,
                        2 * steps + 1,
                        effort,
                        len(large),
                        size(round(taken)),
                        size(round(floor)),
                        f"{taken / floor:.3f}",
                    ]
                )
    body = (
        f"Bars: at most 1.35 of the entropy without Huffman codes: {worst['load']:.3f}, "
        f"{verdict(worst['load'] <= 1.35)}; at most 1.05 with them: {worst['size']:.3f}, "
        f"{verdict(worst['size'] <= 1.05)}. Summed over weights of "
        f"{LARGE} numbers and more, nine of ten of them zero.\n\n"
    )
    body += table(["model", "values", "effort", "weights", "bytes", "entropy", "ratio"], rows)
    write_section("packing-entropy", "Packed bytes beside entropy", command("entropy"), body)


def samples() -> None:
    """The residual network and the transformer with calibration inputs only: size and accuracy of each way."""
    ways: dict[str, dict[str, Any]] = {
        "4 bits": {"mode": "weights", "bits": 4},
        "4 bits, packed": {"mode": "weights", "bits": 4, "pack": "size"},
        "3 bits, packed": {"mode": "weights", "bits": 3, "pack": "size"},
        "16 shared values": {"mode": "weights", "codebook.values": 16, "pack": "size"},
        "12 shared values": {"mode": "weights", "codebook.values": 12, "pack": "size"},
        "8 shared values": {"mode": "weights", "codebook.values": 8, "pack": "size"},
        "int8 arithmetic": {"mode": "static"},
        "int8 arithmetic, packed": {"mode": "static", "pack": "size"},
        "4-bit weights, int8 arithmetic, packed": {"mode": "static", "bits": 4, "pack": "size"},
    }
    bars, rows = [], []
    for name in ("fashion_cnn", "language_transformer"):
        for way, config in ways.items():
            with tempfile.TemporaryDirectory(prefix="packing-") as folder:
                report = quantize(
                    SAMPLES / f"{name}.onnx",
                    output=Path(folder) / "q.onnx",
                    data=SAMPLES / f"{name}.calib.npz",
                    test=SAMPLES / f"{name}.eval.npz",
                    config={"measure.seconds": 0.1, **config},
                )
            ratio, lost = ratio_of(report), lost_by(report)
            rows.append([name, way, size(report.after.file["bytes"]), factor(ratio), points(-lost), speed(report)])
            if way == "16 shared values":
                bars.append(
                    f"- {name}: 6 times smaller within 1 point, with {way}: {factor(ratio)}, {points(-lost)}: "
                    f"{verdict(ratio >= 6 and lost <= 0.01)}"
                )
    body = "\n".join(bars) + "\n\nCalibration inputs without training; accuracy is of the evaluation sets.\n\n"
    body += table(["model", "way", "file", "smaller by", "accuracy", "speed"], rows)
    write_section("packing-samples", "Few bits without training", command("samples"), body)


def lenet(
    net: str, title: str, config: dict[str, Any], ratio: float, error: float, known: str, seen: str = ""
) -> None:
    """Compress a net that was trained on MNIST, following LeNet-5; `seen` tells what test images had shown before."""
    (x, y), (test_x, test_y) = mnist("train"), mnist("test")
    with tempfile.TemporaryDirectory(prefix="packing-") as name:
        folder = Path(name)
        train, test = folder / "train.npz", folder / "test.npz"
        wider = [x, jittered(x, 1)] if net == "lenet_300_100" else [jittered(x, 2)]
        np.savez(train, image=np.concatenate(wider), labels=np.tile(y, len(wider)))
        np.savez(test, image=test_x, labels=test_y)
        given = {**TRAINING, "teacher": str(made("lenet_5")), **config}
        report = compress(made(net), output=folder / "small.onnx", data=train, test=test, config=given)
    assert report.before.quality is not None and report.after.quality is not None
    wrong = [1 - side.quality["accuracy"] for side in (report.before, report.after) if side.quality]
    found = ratio_of(report)
    rows = [
        ["dense", size(report.before.file["bytes"]), "", percent(wrong[0])],
        ["compressed", size(report.after.file["bytes"]), factor(found), percent(wrong[1])],
    ]
    bars = (
        f"- {ratio:g} times smaller at most {percent(error)} test error: {factor(found)} at {percent(wrong[1])}: "
        f"{verdict(found >= ratio and wrong[1] <= error)} ({known})"
    )
    options = ", ".join(f"{key} {value}" for key, value in config.items())
    told = (
        f"`modelkit compress` with {options}; the teacher is the dense LeNet-5. Settings were chosen by "
        "training images that took no part in compressing (the dense nets had seen them)"
        + (f", but for this: {seen}." if seen else "; test images chose nothing.")
    )
    body = f"{bars}\n\n{told}\n\n{table(['model', 'file', 'smaller by', 'test error'], rows)}\n\n{fixed(report)}"
    write_section(f"packing-{net.replace('_', '-')}", title, f"MNIST=folder {command(net.replace('_', '-'))}", body)


def lenet_300_100() -> None:
    """LeNet-300-100: 266,610 numbers."""
    config = {
        **{"sparsity": 0.972, "values": 8, "pruning.epochs": 12, "sharing.epochs": 3},
        **{"pruning.batch": 128, "sharing.batch": 128},
        **{"pruning.learning_rate": 0.002, "sharing.learning_rate": 0.0005},
    }
    known = "Deep Compression: 40x at 1.58 %; soft weight-sharing: 64x at 1.94 %"
    lenet("lenet_300_100", "LeNet-300-100 on MNIST, compressed", config, 64, 0.017, known)


def lenet_5() -> None:
    """LeNet-5 as Caffe has it: 431,080 numbers."""
    config = {
        **{"sparsity": 0.98, "values": 8, "pruning.epochs": 6, "sharing.epochs": 2},
        **{"pruning.batch": 128, "sharing.batch": 128},
        **{"pruning.learning_rate": 0.002, "sharing.learning_rate": 0.0005},
    }
    known = "Deep Compression: 39x at 0.74 %; soft weight-sharing: 162x at 0.97 %"
    seen = (
        "the sparsity was lowered to 0.98 after 0.985 had given 99.29x at 0.77 % test error with an earlier packing"
    )
    lenet("lenet_5", "LeNet-5 on MNIST, compressed", config, 100, 0.008, known, seen)


def article() -> None:
    """The article's net on padded Fashion-MNIST."""
    model = SAMPLES / "made" / "article_cnn.onnx"
    if not model.exists():
        sys.exit(f"{model} is missing: run python sample_models/make.py article_cnn")
    sys.path.insert(0, str(SAMPLES))
    import data

    split = data.fashion()
    train, held = data.padded(split.train.take(24_000, 3)), data.padded(split.test)
    config = {
        **{"sparsity": 0.98, "values": 8, "pruning.epochs": 4, "sharing.epochs": 1},
        **{"pruning.learning_rate": 0.001, "sharing.learning_rate": 0.0003},
    }
    with tempfile.TemporaryDirectory(prefix="packing-") as name:
        folder = Path(name)
        for part, rows_ in (("train", train), ("test", held)):
            np.savez(folder / f"{part}.npz", image=rows_.x, labels=rows_.y)
        report = compress(
            model,
            output=folder / "small.onnx",
            data=folder / "train.npz",
            test=folder / "test.npz",
            config={**TRAINING, **config},
        )
    ratio, lost = ratio_of(report), lost_by(report)
    bars = (
        f"- 60 times smaller within 0.5 points: {factor(ratio)}, {points(-lost)}: "
        f"{verdict(ratio >= 60 and lost <= 0.005)}"
    )
    rows = [
        ["original", size(report.before.file["bytes"]), "", accuracy(report.before.quality)],
        ["compressed", size(report.after.file["bytes"]), factor(ratio), accuracy(report.after.quality)],
    ]
    head = ["model", "file", "smaller by", "accuracy (10,000 test images)"]
    body = f"{bars}\n\n{table(head, rows)}\n\n{fixed(report)}"
    write_section("packing-article", "The article's network, compressed", command("article"), body)


def ratio_of(report: Report) -> float:
    """How many times smaller the file became."""
    return float(report.before.file["bytes"]) / float(report.after.file["bytes"])


def lost_by(report: Report) -> float:
    """Accuracy lost on the test samples."""
    assert report.before.quality is not None and report.after.quality is not None
    return float(report.before.quality["accuracy"] - report.after.quality["accuracy"])


def speed(report: Report) -> str:
    """Speed against the original."""
    return "" if report.speedup is None else factor(report.speedup["value"])


def accuracy(quality: dict[str, Any] | None) -> str:
    """Accuracy in percent."""
    assert quality is not None
    return percent(quality["accuracy"])


def points(share: float) -> str:
    """A difference of shares in points."""
    return f"{100 * share:+.2f} points"


def fixed(report: Report) -> str:
    """What the packed file has beside the weights."""
    numbers = [each.numbers for each in report.decisions if each.target == "functions" and each.action == "added"]
    weights = sum(int(each.numbers["bytes"]) for each in report.decisions if each.action == "packed")
    functions = sum(int(each["bytes"]) for each in numbers)
    rest = int(report.after.file["bytes"]) - weights - functions
    return f"Bytes of the file: {weights} packed weights, {functions} functions, {rest} biases, nodes and names."


def command(part: str) -> str:
    """What makes a section again."""
    return f"python benchmarks/packing.py {part}"


PARTS: dict[str, Callable[[], None]] = {
    "sessions": sessions,
    "entropy": entropy,
    "samples": samples,
    "lenet-300-100": lenet_300_100,
    "lenet-5": lenet_5,
    "article": article,
}


def main(names: Sequence[str]) -> None:
    """Measure the parts that are named, or all."""
    for name in names or list(PARTS):
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
