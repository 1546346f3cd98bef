"""Runs onnx's own operator tests through the trainable graph, and counts what passes, fails and is refused.

python benchmarks/conformance.py                 # prints the table
python benchmarks/conformance.py --write         # and puts it into docs/conformance.md
python benchmarks/conformance.py --only Resize   # one operator, with the reason of each failure
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase

from modelkit.errors import ModelError
from modelkit.train.module import to_torch
from modelkit.train.ops.dtypes import tensor_of
from modelkit.train.ops.table import OPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "conformance.md"

# The operators of models that classify images, texts and sounds: what the exporters of torch, TensorFlow
# and Keras write for ResNet, MobileNet, EfficientNet, ConvNeXt, VGG, DenseNet, Inception, ViT, Swin
# (convolutions, pools, norms, resizing, the activations of the families); BERT, DistilBERT, RoBERTa, T5
# and LLaMA encoders (attention, embeddings, masks, shapes computed in the graph, einsum, rotary
# positions); keyword spotting and sound models (recurrent layers, spectra, running sums), each with the
# arithmetic in which older exporters take LayerNorm, GELU and softmax apart.
BAR: dict[str, tuple[str, ...]] = {
    "convolution and pooling": (
        *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Pad"),
        *("Resize", "DepthToSpace", "SpaceToDepth"),
    ),
    "normalisation": (
        *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"),
        *("RMSNormalization", "LRN", "LpNormalization", "Dropout"),
    ),
    "activation": (
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
        *("Mish", "Swish", "Gelu", "Erf", "Tanh", "Softplus", "Softsign", "Softmax", "LogSoftmax"),
    ),
    "products": ("MatMul", "Gemm", "Einsum", "Attention", "RotaryEmbedding"),
    "recurrence and sound": ("LSTM", "GRU", "RNN", "DFT", "STFT", "MelWeightMatrix"),
    "arithmetic": (
        *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Reciprocal", "Min", "Max"),
        *("Sum", "Mean", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Mod"),
    ),
    "logic": ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Where"),
    "reduction": (
        *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"),
        *("ArgMax", "CumSum", "TopK"),
    ),
    "shape": (
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Expand", "Tile"),
        *("Shape", "Size", "Identity", "Constant", "ConstantOfShape", "Range", "Trilu", "Cast"),
    ),
    "index": (
        *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "OneHot", "NonZero"),
        "ReverseSequence",
    ),
}
CORE = tuple(name for names in BAR.values() for name in names)
LEAST_SHARE = 0.95

# What no model computes with numbers that have a gradient: nothing here is counted.
_LEFT_OUT = {
    "control flow, sequences and optionals": (
        *("If", "Loop", "Scan", "SequenceMap", "SequenceInsert", "SplitToSequence", "OptionalGetElement"),
        "OptionalHasElement",
    ),
    "text": ("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"),
    "images in files": ("ImageDecoder",),
    "random numbers": ("Bernoulli",),
}
_WHY = {name: why for why, names in _LEFT_OUT.items() for name in names}


@dataclass(frozen=True)
class Case:
    """One of onnx's tests.

    Attributes:
        name: Its name.
        op: The operator that it tests.
        expanded: Whether the operator is replaced by the graph that defines it.
        test: Model, inputs and outputs.
    """

    name: str
    op: str
    expanded: bool
    test: TestCase


@dataclass
class Tally:
    """Outcomes of an operator's cases, with the reasons."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of cases."""
        return self.passed + len(self.failed) + len(self.refused)

    def count(self, outcome: str, line: str) -> None:
        """Add one outcome."""
        if outcome == "passed":
            self.passed += 1
        else:
            getattr(self, outcome).append(line)


def cases() -> tuple[list[Case], dict[str, int]]:
    """Return the cases that count, and how many do not, by reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes the expected infinities
        found = collect_testcases(None)
    ops = {t.name: t.model.graph.node[0].op_type for t in found if "_expanded" not in t.name}
    kept: list[Case] = []
    left_out: dict[str, int] = defaultdict(int)
    for test in found:
        plain = re.sub(r"_expanded.*$", "", test.name)
        op = ops.get(plain, test.model.graph.node[0].op_type)
        why = _why_left_out(test, op)
        if why is None:
            kept.append(Case(test.name, op, plain != test.name, test))
        else:
            left_out[why] += 1
    return kept, dict(left_out)


def _why_left_out(test: TestCase, op: str) -> str | None:
    graph = test.model.graph
    if op in _WHY:
        return _WHY[op]
    if any(opset.domain.startswith("ai.onnx.") for opset in test.model.opset_import if _uses(graph, opset.domain)):
        return "other domains"
    for value in (*graph.input, *graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return "control flow, sequences and optionals"
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            return "text"
    if op == "Dropout" and "train" in test.name:
        return "random numbers"
    return None


def _uses(graph: onnx.GraphProto, domain: str) -> bool:
    return any(node.domain == domain for node in graph.node)


def attempt(case: Case) -> tuple[str, str]:
    """Run a case: "passed", "failed" or "refused", and why."""
    try:
        module = to_torch(ir.serde.deserialize_model(case.test.model), widen=False).eval()
    except ModelError as error:
        return "refused", error.message
    kinds = [ir.DataType(v.type.tensor_type.elem_type) for v in case.test.model.graph.input]
    names = [v.name for v in case.test.model.graph.input]
    for given, expected in case.test.data_sets:
        arrays = [_array(array) for array in given]
        inputs = {n: tensor_of(a, k, False) for n, a, k in zip(names, arrays, kinds, strict=True)}
        try:
            with torch.no_grad():
                outputs = module(inputs)
        except ModelError as error:
            return "failed", error.message
        for (name, tensor), wanted in zip(outputs.items(), expected, strict=True):
            problem = differs(tensor, _array(wanted), case.test.rtol, case.test.atol)
            if problem:
                return "failed", f"{name}: {problem}"
    return "passed", ""


def _array(stored: object) -> np.ndarray:
    """Types that numpy lacks are stored as ONNX tensors."""
    return numpy_helper.to_array(stored) if isinstance(stored, onnx.TensorProto) else np.asarray(stored)


def differs(got: torch.Tensor, wanted: np.ndarray, rtol: float, atol: float) -> str:
    """Say how an output differs from what it should be; "" where it does not."""
    if tuple(got.shape) != wanted.shape:
        return f"shape {tuple(got.shape)}, not {wanted.shape}"
    native = issubclass(wanted.dtype.type, np.number | np.bool_)  # the others are carried as floats
    if native and str(got.dtype).removeprefix("torch.") != wanted.dtype.name:
        return f"type {got.dtype}, not {wanted.dtype}"
    if native and wanted.dtype.kind in "iub":
        array = got.numpy()
        return "" if np.array_equal(array, wanted) else f"{np.count_nonzero(array != wanted)} numbers differ"
    complex_ = wanted.dtype.kind == "c"
    left = got.to(torch.complex128 if complex_ else torch.float64).numpy()
    right = wanted.astype(np.complex128 if complex_ else np.float64)
    if np.allclose(left, right, rtol, atol, equal_nan=True):
        return ""
    with np.errstate(invalid="ignore"):
        return f"largest difference {np.nanmax(np.abs(left - right)):.3g}"


def run(chosen: Sequence[Case]) -> tuple[dict[str, Tally], Tally]:
    """Run cases; returns the tally of each operator's own cases, and one of all expanded ones."""
    torch.set_num_threads(1)
    tallies: dict[str, Tally] = defaultdict(Tally)
    expanded = Tally()
    for case in chosen:
        outcome, why = attempt(case)
        (expanded if case.expanded else tallies[case.op]).count(outcome, f"{case.name}: {why}")
    return dict(sorted(tallies.items())), expanded


def share(tallies: dict[str, Tally], names: Sequence[str]) -> float:
    """Share of the cases of some operators that pass."""
    chosen = [tallies[name] for name in names if name in tallies]
    return sum(t.passed for t in chosen) / max(1, sum(t.total for t in chosen))


def render(tallies: dict[str, Tally], expanded: Tally, left_out: dict[str, int]) -> str:
    """Write the page."""
    core = [tallies[name] for name in CORE if name in tallies]
    lines = [
        "# Conformance of the trainable graph",
        "",
        "onnx's own operator tests, run through [the trainable graph](train.md) on the CPU and compared with the",
        "stored outputs: shape, element type, and every number within the test's own tolerance.",
        "`benchmarks/conformance.py` does it again and writes this page; a test holds the bar.",
        "",
        f"onnx {onnx.__version__}, torch {torch.__version__.split('+')[0]}.",
        "",
        "| cases | pass | fail | refused |",
        "| --- | --- | --- | --- |",
        _row(f"the {len(CORE)} operators of the bar", core),
        _row("all operators", tallies.values()),
        _row("operators replaced by the graphs that define them", [expanded]),
        "",
        f"The bar: at least {LEAST_SHARE:.0%} of the cases of the {len(CORE)} operators that occur in models which",
        f"classify images, texts and sounds; {share(tallies, CORE):.1%} pass, "
        f"of all operators' cases {share(tallies, list(tallies)):.1%}.",
        "",
        "Not counted, because they have no gradient to speak of: "
        + "; ".join(f"{why} ({n} cases)" for why, n in sorted(left_out.items()))
        + ".",
        "",
        "## The operators of the bar",
        "",
    ]
    for theme, names in BAR.items():
        lines.append(f"- {theme}: {', '.join(names)}")
    lines += [
        "",
        "## Case by case",
        "",
        "| operator | cases | pass | fail | refused |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, t in tallies.items():
        lines.append(_row(f"{name} *" if name in CORE else name, [t], " |"))
    lines += ["", "\\* belongs to the bar. What does not pass, and why:", ""]
    reasons: dict[str, list[str]] = defaultdict(list)
    for t in (*tallies.values(), expanded):
        for line in t.failed + t.refused:
            name, _, why = line.partition(": ")
            reasons[why].append(f"`{name.removeprefix('test_')}`")
    lines += [f"- {why}: {', '.join(names)}" for why, names in reasons.items()]
    untested = sorted(set(OPS) - set(tallies))
    lines += ["", f"Operators that run and that onnx has no such test for: {', '.join(untested)}.", ""]
    return "\n".join(lines)


def _row(label: str, tallies: Iterable[Tally], between: str = ":") -> str:
    each = [(t.total, t.passed, len(t.failed), len(t.refused)) for t in tallies]
    counts = [sum(column) for column in zip((0, 0, 0, 0), *each, strict=True)]
    return f"| {label}{between} {' | '.join(map(str, counts))} |"


def main() -> int:
    """Run and print; 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="operators")
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md")
    options = parser.parse_args()
    chosen, left_out = cases()
    if options.only:
        chosen = [case for case in chosen if case.op in options.only]
    tallies, expanded = run(chosen)
    for tally in (*tallies.values(), expanded):
        for line in tally.failed:
            print(f"failed   {line}")
        for line in tally.refused:
            print(f"refused  {line}")
    missing = [name for name in CORE if name not in OPS]
    total, passed = sum(t.total for t in tallies.values()), sum(t.passed for t in tallies.values())
    print(f"\n{passed} of {total} cases pass; {expanded.passed} of {expanded.total} expanded ones")
    print(f"the bar's operators: {share(tallies, CORE):.2%}; missing: {', '.join(missing) or 'none'}")
    if options.write:
        PAGE.write_text(render(tallies, expanded, left_out), encoding="utf-8")
    return 0 if not missing and share(tallies, CORE) >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
