"""Awkward twins: each computes what its parent sample computes, in a form that has broken other tools."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import recipes
import surgery
import torch
from export import export, run, save
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)


@dataclass(frozen=True)
class Twin:
    """One awkward form of a sample.

    Attributes:
        parent: Name of the sample.
        what: The awkwardness, in words.
        build: Writes the twin: takes the parent's name, the samples' folder and the file to write.
        quantized: True if the outputs differ from the parent's as int8 makes them differ.
        shipped: False for what goes to `made/`.
    """

    parent: str
    what: str
    build: Callable[[str, Path, Path], None]
    quantized: bool = False
    shipped: bool = True


def _exported(batch: int = 2, **options: object) -> Callable[[str, Path, Path], None]:
    """Export the trained net again with other options."""

    def build(parent: str, out: Path, path: Path) -> None:
        sample = recipes.SAMPLES[parent]
        weights = out / "made" / "weights" / f"{parent}.pt"
        if not weights.exists():
            raise SystemExit(f"error: {weights} is missing\nhint: python sample_models/make.py {parent}")
        net = sample.net()
        net.load_state_dict(torch.load(weights, weights_only=True))
        example = _arrays(parent, out, "eval")[0][:batch]
        export(net.eval(), example, path, input_name=sample.input_name, **options)

    return build


def _rewritten(*steps: Callable[[onnx.ModelProto], None]) -> Callable[[str, Path, Path], None]:
    """Rewrite the parent's graph."""

    def build(parent: str, out: Path, path: Path) -> None:
        model = onnx.load(out / f"{parent}.onnx")
        for step in steps:
            step(model)
        save(model, path)

    return build


def _external(parent: str, out: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    surgery.external_data(onnx.load(out / f"{parent}.onnx"), path)


class _Batches(CalibrationDataReader):
    """The calibration samples in batches of 64."""

    def __init__(self, name: str, x: np.ndarray) -> None:
        self.feeds = iter([{name: x[i : i + 64]} for i in range(0, len(x), 64)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None after the last."""
        return next(self.feeds, None)


def _static(style: QuantFormat) -> Callable[[str, Path, Path], None]:
    """Static quantization by onnxruntime: uint8 activations, int8 weights for each channel."""

    def build(parent: str, out: Path, path: Path) -> None:
        name = recipes.SAMPLES[parent].input_name
        reader = _Batches(name, _arrays(parent, out, "calib")[0])
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / path.name
            source = out / f"{parent}.onnx"
            quantize_static(source, target, reader, quant_format=style, per_channel=True, **types)
            save(onnx.load(target), path)

    return build


def _dynamic(parent: str, out: Path, path: Path) -> None:
    """Dynamic quantization by onnxruntime: MatMulInteger and the like."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / path.name
        quantize_dynamic(out / f"{parent}.onnx", target, weight_type=QuantType.QInt8, per_channel=True)
        save(onnx.load(target), path)


def _arrays(parent: str, out: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(out / f"{parent}.{kind}.npz") as archive:
        return archive[recipes.SAMPLES[parent].input_name], archive["labels"]


_OLD = {"legacy": True}

TWINS: dict[str, Twin] = {
    "digits_mlp_opset11": Twin("digits_mlp", "opset 11", _exported(opset=11, **_OLD)),
    "fashion_cnn_opset13": Twin("fashion_cnn", "opset 13", _exported(opset=13, **_OLD)),
    "language_gru_opset11": Twin("language_gru", "opset 11", _exported(opset=11, **_OLD), shipped=False),
    "language_transformer_opset13": Twin(
        "language_transformer",
        "opset 13, LayerNorm taken apart, shapes computed in the graph, transposed weights",
        _exported(opset=13, **_OLD),
    ),
    "language_transformer_opset20": Twin(
        "language_transformer", "opset 20, Gelu as one node", _exported(opset=20), shipped=False
    ),
    "digits_mlp_batch1": Twin("digits_mlp", "fixed batch of one", _exported(1, dynamic=False)),
    "fashion_cnn_batch1": Twin("fashion_cnn", "fixed batch of one", _exported(1, dynamic=False)),
    "fashion_cnn_batchnorm": Twin(
        "fashion_cnn",
        "BatchNormalization nodes left in",
        _exported(opset=17, legacy=True, fold_batchnorm=False),
    ),
    "fashion_cnn_constants": Twin(
        "fashion_cnn", "weights held in Constant nodes", _rewritten(surgery.weights_in_constants)
    ),
    "digits_mlp_initializer_inputs": Twin(
        "digits_mlp",
        "IR version 3, opset 8, initializers listed as graph inputs",
        _rewritten(surgery.initializers_as_inputs),
    ),
    "digits_mlp_shared": Twin(
        "digits_mlp",
        "one weight used by two Gemm, another by a Gemm and a Transpose",
        _rewritten(
            lambda model: surgery.shared_by_same_op(model, "2.weight"),
            lambda model: surgery.shared_with_other_op(model, "4.weight"),
        ),
    ),
    "fashion_cnn_shared": Twin(
        "fashion_cnn",
        "one weight used by two Conv, another by a Conv and a Reshape",
        _rewritten(
            lambda model: surgery.shared_by_same_op(model, "9.body.0.weight"),
            lambda model: surgery.shared_with_other_op(model, "13.weight", area=49),
        ),
    ),
    "digits_mlp_external": Twin("digits_mlp", "weights in an external data file", _external),
    "digits_mlp_if": Twin(
        "digits_mlp",
        "an If with weights in both branches, under the same names, and a bias from outside",
        _rewritten(lambda model: surgery.branches(model, "2.weight", 0.3)),
    ),
    "fashion_cnn_qdq": Twin(
        "fashion_cnn", "already int8: QuantizeLinear, DequantizeLinear", _static(QuantFormat.QDQ), True
    ),
    "fashion_cnn_qoperator": Twin(
        "fashion_cnn", "already int8: QLinearConv and the like", _static(QuantFormat.QOperator), True
    ),
    "language_transformer_dynamic": Twin(
        "language_transformer", "already int8: MatMulInteger, DynamicQuantizeLinear", _dynamic, True
    ),
}
"""Every twin, in the order of `twins.json`."""


def make_all(out: Path) -> dict[str, dict[str, object]]:
    """Write every twin and compare it with its parent on the parent's evaluation set.

    Returns:
        The entries of `twins.json`.
    """
    # The quantizers advise a clean-up that these graphs do not need.
    logging.disable(logging.WARNING)
    entries: dict[str, dict[str, object]] = {}
    for name, twin in TWINS.items():
        folder = out / ("twins" if twin.shipped else "made/twins")
        path = folder / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        twin.build(twin.parent, out, path)
        x, labels = _arrays(twin.parent, out, "eval")
        logits, reference = run(path, x), run(out / f"{twin.parent}.onnx", x)
        model = onnx.load(path, load_external_data=False)
        files = [path, path.with_name(f"{path.name}.data")]
        entries[name] = {
            "file": path.relative_to(out).as_posix(),
            "parent": twin.parent,
            "what": twin.what,
            "eval": f"{twin.parent}.eval.npz",
            "calib": f"{twin.parent}.calib.npz",
            "quantized": twin.quantized,
            "opset": next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx")),
            "bytes": sum(file.stat().st_size for file in files if file.exists()),
            "eval_accuracy": round(float((logits.argmax(1) == labels).mean()), 6),
            "agreement": round(float((logits.argmax(1) == reference.argmax(1)).mean()), 6),
            "shipped": twin.shipped,
        }
    return entries
