"""Every way of quantizing and pruning, tried on models that are not ours: which work, which are refused, which crash.

    python benchmarks/corpus.py [--large] [--only PATTERN] [FOLDER ...]

Without folders it takes the models that ship inside the packages onnx and onnxruntime, and sample_models/.
A refusal is a ModelkitError: one line that says why. A crash is anything else, and a bug.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelkit.channels.cutting import prune_channels
from modelkit.data.synthetic import synthetic_dataset
from modelkit.decision import Decision
from modelkit.errors import ModelkitError
from modelkit.graph.edit import add_initializer
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.lift import fix_defaults
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.opset import ensure_opset
from modelkit.graph.run import session_of
from modelkit.graph.save import save
from modelkit.graph.tensors import constant_of
from modelkit.pack.proven import pack_model
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights.sparse import prune_by_magnitude
from modelkit.quantize.affine import sqnr_db
from modelkit.quantize.audit import audit
from modelkit.quantize.calibrate import observe
from modelkit.quantize.canonical import canonicalise
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.dynamic import quantize_dynamic
from modelkit.quantize.float16 import store_half
from modelkit.quantize.plan import make_plan
from modelkit.quantize.ranges import choose_range
from modelkit.quantize.static import ActivationType, apply_static
from modelkit.quantize.weights import quantize_weights
from modelkit.runtime import input_specs, make_session

SAMPLES = 4
# Weights of the largest classifiers in the corpus fill half a gigabyte.
LARGE = ("*vgg19*", "*alexnet*", "*zfnet512*")

Transform = Callable[[ir.Model], list[Decision]]


@dataclass(frozen=True)
class Outcome:
    """What came of one mode on one model.

    Attributes:
        model: File.
        mode: Mode.
        status: "works", "idle" (nothing to do), "refused" or "crash".
        detail: SQNR and counts, or the message.
        seconds: Time taken.
    """

    model: str
    mode: str
    status: str
    detail: str
    seconds: float


def weights(bits: int, fuse: bool, opset: int, **options: object) -> Transform:
    """Weight-only quantization with some options."""

    def apply(model: ir.Model) -> list[Decision]:
        ensure_opset(model, opset)
        chosen = WeightOptions(**options)  # type: ignore[arg-type]
        return quantize_weights(model, bits=bits, options=chosen, include=[], exclude=[], fuse_matmul=fuse)

    return apply


def half(dtype: ir.DataType) -> Transform:
    """16-bit floats."""

    def apply(model: ir.Model) -> list[Decision]:
        ensure_opset(model, 13)
        return store_half(model, dtype, include=[], exclude=[])

    return apply


def dynamic(model: ir.Model) -> list[Decision]:
    """Activations quantized at run time."""
    ensure_opset(model, 13)
    return quantize_dynamic(model, weight_bits=8, options=WeightOptions(), include=[], exclude=[])


def static(signed: bool, arithmetic: bool, method: str) -> Transform:
    """Ranges from a few random samples."""

    def apply(model: ir.Model) -> list[Decision]:
        ensure_opset(model, 13)
        canonicalise(model)
        plan = make_plan(model, include=[], exclude=[], arithmetic=arithmetic)
        data = dataset(model)
        names = [str(value.name) for value in plan.activations]
        seen = observe(model, names, lambda: data.batches(2), count=data.count)
        ranges = {name: choose_range(histogram, method) for name, histogram in seen.items()}  # type: ignore[arg-type]
        apply_static(model, plan, ranges, ActivationType(signed, 8), WeightOptions())
        return plan.decisions

    return apply


def zeros(model: ir.Model) -> list[Decision]:
    """Half of the weights to zero, by magnitude."""
    return prune_by_magnitude(model, PruneConfig(sparsity=0.5))


def channels(repair: bool) -> Transform:
    """A third of the channels out; repaired on a few random samples, or not."""

    def apply(model: ir.Model) -> list[Decision]:
        config = PruneConfig(channels=0.3)
        return prune_channels(model, config, 0.3, dataset(model) if repair else None)

    return apply


def packed(model: ir.Model) -> list[Decision]:
    """Nine of ten weights to zero, and what is left packed as tightly as it goes."""
    prune_by_magnitude(model, PruneConfig(sparsity=0.9))
    return pack_model(model, "size")


MODES: dict[str, Transform] = {
    "weights 8, at load": weights(8, False, 11),
    "weights 8, at run time": weights(8, True, 13, center="range", scale="mse"),
    "weights 4 in blocks, at load": weights(4, False, 21, granularity="block", center="mean"),
    "weights 4 in blocks, at run time": weights(4, True, 21, granularity="block"),
    "dynamic": dynamic,
    "static minmax, uint8": static(False, True, "minmax"),
    "static mse, int8, layers": static(True, False, "mse"),
    "static entropy, uint8": static(False, True, "entropy"),
    "float16": half(ir.DataType.FLOAT16),
    "bfloat16": half(ir.DataType.BFLOAT16),
    "prune weights": zeros,
    "prune channels": channels(False),
    "prune channels, repaired": channels(True),
    "prune and pack": packed,
}
DONE = {"quantized", "int8", "float16", "bfloat16", "pruned", "cut", "packed"}


def dataset(model: ir.Model):
    """Random inputs that fit a model."""
    specs = input_specs(session_of(model))
    return synthetic_dataset(specs, count=SAMPLES, vocabulary=input_vocabulary(model))


def attempt(path: Path, mode: str) -> Outcome:
    """Try one mode on one model, from the file to the outputs of the saved artifact."""
    start = time.perf_counter()
    try:
        status, detail = _attempt(path, MODES[mode])
    except ModelkitError as error:
        status, detail = "refused", error.message
    except Exception as error:
        place = sys.exc_info()[2]
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else "?"
        status, detail = "crash", f"{type(error).__name__} in {where}: {error}"
    return Outcome(str(path), mode, status, " ".join(detail.split())[:300], time.perf_counter() - start)


def read(path: Path) -> ir.Model:
    """Load a model; weights that its file only describes (ConstantOfShape) become seeded random numbers."""
    model = load(path).model
    fix_defaults(model)
    random = np.random.default_rng(0)
    for node in list(model.graph):
        shape = constant_of(node.inputs[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None or node.outputs[0].is_graph_output():
            continue
        dims = tuple(int(d) for d in shape.numpy())
        fan_in = math.prod(dims[1:]) if len(dims) > 1 else 0
        # Scales and variances of normalisations stay near 1, everything else small.
        numbers = (
            random.standard_normal(dims, np.float32) / np.sqrt(fan_in) if fan_in else random.uniform(0.5, 1, dims)
        )
        value = add_initializer(model.graph, f"{node.outputs[0].name}.filled", numbers.astype(np.float32))
        node.outputs[0].replace_all_uses_with(value)
        model.graph.remove(node, safe=True)
    return model


def _attempt(path: Path, apply: Transform) -> tuple[str, str]:
    original = read(path)
    model = original.clone()
    normalise(model)
    decisions = apply(model)
    changed = [d for d in decisions if d.action in DONE]
    if not changed:
        reasons = Counter(d.reason for d in decisions)
        return "idle", "; ".join(f"{n}x {reason}" for reason, n in reasons.most_common(2))
    data = dataset(original)
    session = session_of(original)
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        target = Path(folder) / "artifact.onnx"
        save(model, target)
        counts = audit(target, decisions)
        artifact = make_session(target)
        worst = float("inf")
        for batch in data.batches(2):
            for expected, actual in zip(
                session.run(None, batch.inputs), artifact.run(None, batch.inputs), strict=True
            ):
                if expected.shape != actual.shape or expected.dtype != actual.dtype:
                    raise AssertionError(f"{expected.shape} {expected.dtype} became {actual.shape} {actual.dtype}")
                if np.issubdtype(expected.dtype, np.floating):
                    if not np.isfinite(actual[np.isfinite(expected)]).all():
                        raise AssertionError("an output became infinite or NaN")
                    worst = min(worst, sqnr_db(expected, actual))
        kinds = f"{counts['integer']} integer, {counts['float']} float, {counts['conversions']} conversions"
        return "works", f"{worst:.1f} dB, {len(changed)} changed, {kinds}"


def corpus(folders: Sequence[Path], large: bool, only: str) -> Iterator[Path]:
    """Every ONNX file in some folders, in a fixed order."""
    if not folders:
        import onnx
        import onnxruntime

        data = Path(onnx.__file__).parent / "backend" / "test" / "data"
        folders = [
            *(data / part for part in ("light", "pytorch-converted", "pytorch-operator", "simple")),
            Path(onnxruntime.__file__).parent / "datasets",
            Path(__file__).parent.parent / "sample_models",
        ]
    for folder in folders:
        for path in sorted(folder.rglob("*.onnx")):
            if (large or not any(fnmatchcase(path.name, p) for p in LARGE)) and fnmatchcase(str(path), f"*{only}*"):
                yield path


def main() -> int:
    """Print a line for each refusal and crash, then the counts; 1 where anything crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--large", action="store_true", help="models with hundreds of megabytes too")
    parser.add_argument("--only", default="", help="part of a path")
    parser.add_argument("--mode", default="", help="part of a mode's name")
    parser.add_argument("--all", action="store_true", help="a line for each success too")
    options = parser.parse_args()
    table: dict[str, Counter[str]] = {mode: Counter() for mode in MODES if options.mode in mode}
    reasons: Counter[str] = Counter()
    for path in corpus(options.folders, options.large, options.only):
        for mode, counts in table.items():
            outcome = apart(path, mode)
            counts[outcome.status] += 1
            if outcome.status == "refused":
                reasons[outcome.detail] += 1
            if options.all or outcome.status == "crash":
                label = "/".join(path.parts[-2:])
                print(f"{outcome.status:8}{outcome.seconds:6.1f} s  {label}  [{mode}]  {outcome.detail}", flush=True)
    print("\n| mode | works | idle | refused | crash |\n| --- | --- | --- | --- | --- |")
    for mode, counts in table.items():
        print(f"| {mode} | " + " | ".join(str(counts[s]) for s in ("works", "idle", "refused", "crash")) + " |")
    for reason, count in reasons.most_common():
        print(f"refused {count}x: {reason}")
    return 1 if any(counts["crash"] for counts in table.values()) else 0


_pool: list[ProcessPoolExecutor] = []


def apart(path: Path, mode: str) -> Outcome:
    """Try in another process: a runtime that dies must not end the sweep."""
    if not _pool:
        _pool.append(ProcessPoolExecutor(max_workers=1))
    try:
        return _pool[0].submit(attempt, path, mode).result()
    except BrokenProcessPool:
        _pool.clear()
        return Outcome(str(path), mode, "crash", "the process died", 0.0)


if __name__ == "__main__":
    sys.exit(main())
