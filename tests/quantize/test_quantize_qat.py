"""Quantization-aware training from end to end: trained candidates beside post-training ones, in 8-bit kernels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from quantize_nets import Net, kernels, optimised

from modelkit.api import quantize
from modelkit.config.resolve import resolve
from modelkit.data.arrays import from_arrays
from modelkit.data.dataset import Dataset
from modelkit.data.open import open_dataset
from modelkit.errors import ConfigError, ModelError, UsageError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.progress import Progress, silent
from modelkit.quantize.auto import Quantizer
from modelkit.quantize.config import QuantizeConfig
from modelkit.quantize.variant import Variant
from modelkit.runtime import input_specs, make_session
from modelkit.train.fakequant import fake_quantized
from modelkit.train.history import noted

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def config(**options: Any) -> QuantizeConfig:
    given = {"mode": "static", "qat.enabled": True, "qat.threads": 1, "qat.device": "cpu", **options}
    return resolve(QuantizeConfig, flags={key.replace("__", "."): (value, key) for key, value in given.items()}).value


def samples(name: str, count: int) -> Dataset:
    return open_dataset(SAMPLES / f"{name}.calib.npz", input_specs(make_session(SAMPLES / f"{name}.onnx"))).subset(
        range(count)
    )


def quantizer(name: str, count: int, **options: Any) -> Quantizer:
    model = load(SAMPLES / f"{name}.onnx").model
    normalise(model)
    return Quantizer(model, config(**options), samples(name, count), "vnni")


def noise(model: Any, reference: Any, data: Dataset) -> float:
    """Mean squared error of the outputs over their mean square."""
    inputs = next(iter(data.batches(64))).inputs
    wanted, found = (session_of(each).run(None, inputs)[0] for each in (reference, model))
    return float(np.square(found - wanted).mean() / np.square(wanted).mean())


def test_a_run_tries_the_trained_form_beside_the_others(tmp_path: Path) -> None:
    artifact = tmp_path / "small.onnx"
    options = {"mode": "static", "bits": 2, "qat.enabled": True, "qat.epochs": 4, "qat.threads": 1}
    report = quantize(
        SAMPLES / "digits_mlp.onnx",
        output=artifact,
        data=SAMPLES / "digits_mlp.calib.npz",
        test=SAMPLES / "digits_mlp.eval.npz",
        config={**options, "measure.seconds": 0.05},
    )
    tried = {trial["name"]: trial for trial in report.candidates}
    assert {"static minmax", "static mse"} < set(tried)
    trained = next(trial for name, trial in tried.items() if name.endswith(", trained"))
    plain = tried[trained["name"].removesuffix(", trained")]
    assert trained["fidelity"]["sqnr_db"] > plain["fidelity"]["sqnr_db"] + 3
    assert trained["status"] == "chosen" and report.history[0]["metric"] == "agreement"
    assert any(d.action == "trained" and d.target == "model" for d in report.decisions)
    assert report.data["calibration"]["count"] > report.data["selection"]["count"]
    assert {function.domain for function in onnx.load(artifact).functions} == {"modelkit.packing"}
    assert artifact.stat().st_size < (SAMPLES / "digits_mlp.onnx").stat().st_size / 8
    assert json.loads((tmp_path / "small.report.json").read_text())["config"]["qat"]["enabled"] is True


@pytest.mark.parametrize("bits", [8, 4])
def test_four_bits_run_in_the_kernels_of_eight(bits: int, tmp_path: Path) -> None:
    made = quantizer("fashion_cnn", 64, bits=bits, qat__enabled=False)
    model = made.model.clone()
    made.candidates()[-1].apply(model, silent)
    found = kernels(optimised(model, tmp_path))
    assert found["QLinearConv"] == 10 and found["QGemm"] == 1 and not found["Cast"] and not found["Conv"]
    sizes = {
        value.const_value.dtype.name for value in model.graph.initializers.values() if value.const_value.size > 300
    }
    assert sizes == ({"INT8"} if bits == 8 else {"INT4"})


@pytest.mark.parametrize(
    ("name", "count", "kind"),
    [("fashion_cnn", 64, "uint8"), ("fashion_cnn", 64, "int8"), ("language_transformer", 48, "uint8")],
)
def test_the_artifact_computes_what_was_trained(name: str, count: int, kind: str) -> None:
    """Float weights, steps and biases as they are after some steps, against the finished artifact in onnxruntime."""
    made, kept = quantizer(name, count, bits=4, activations__type=kind), {}

    def trainer(model: Any, weights: Any, bits: int, progress: Progress) -> list[Any]:
        from modelkit.train.module import write_back

        module = fake_quantized(model, weights, bits=bits)
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        inputs = {k: torch.from_numpy(v) for k, v in next(iter(made.calibration.batches(16))).inputs.items()}
        for _ in range(2):
            next(iter(module(inputs).values())).square().mean().backward()
            optimizer.step()
        kept["module"], kept["changed"] = module.eval(), write_back(module, model)
        return []

    model = made.model.clone()
    # Without what is stored in fewer bits afterwards, such as embeddings.
    assert made._static is not None
    replace(made._static, trainer=trainer).apply(model, Variant("mse", trained=True))
    inputs = next(iter(made.calibration.batches(32))).inputs
    with torch.no_grad():
        wanted = next(iter(kept["module"]({k: torch.from_numpy(v) for k, v in inputs.items()}).values())).numpy()
    found = session_of(model).run(None, inputs)[0]
    # Where a number lies in the middle between two integers, the last bit of a sum decides.
    scale = np.abs(wanted).max()
    assert np.abs(found - wanted).max() < 0.01 * scale and np.abs(found - wanted).mean() < 0.001 * scale
    assert any(name.endswith(".q") for name in kept["changed"]) and any("scale" in name for name in kept["changed"])


def test_a_transformer_is_trained() -> None:
    made = quantizer("language_transformer", 128, bits=4, qat__epochs=2, qat__learning_rate=1e-4)
    plain, trained = made.model.clone(), made.model.clone()
    made.train_static(plain, lambda model, weights, bits, progress: [])
    assert made._static is not None and made._static.trainer is not None
    decisions = made.train_static(trained, made._static.trainer)
    assert noted(trained)[0]["best"] > 0 and any(d.action == "trained" for d in decisions)
    data = samples("language_transformer", 512).subset(range(128, 256))
    assert noise(trained, made.model, data) < 0.95 * noise(plain, made.model, data)


def test_labels_are_not_needed() -> None:
    made = quantizer("digits_mlp", 300, bits=2, qat__epochs=2)
    made.calibration.labels = None
    trained = made.model.clone()
    made.train_static(trained, made._static.trainer)
    assert noted(trained)[0]["loss"].startswith("distillation")
    with pytest.raises(UsageError, match="needs labels") as error:
        unlabelled = Quantizer(made.model, config(qat__loss="cross_entropy"), made.calibration, "vnni")
        unlabelled.candidates()
    assert "qat.loss" in error.value.hint


def test_a_time_limit_ends_the_training() -> None:
    made = quantizer("digits_mlp", 400, bits=4, qat__epochs=1000, qat__patience=0, qat__time_limit="0.5s")
    model = made.model.clone()
    made.train_static(model, made._static.trainer)
    assert noted(model)[0]["stopped"] == "time limit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "weights", "qat.enabled": True}, "needs mode static or auto and 2 to 8 bits, not mode weights"),
        ({"mode": "dynamic", "qat.enabled": True}, "not mode dynamic"),
        ({"bits": 16, "qat.enabled": True}, "not bits 16"),
        ({"bits": 1, "qat.enabled": True}, "2 to 8 bits, not bits 1"),
        ({"mode": "static", "bits": 16}, "must be 2 to 8, not 16"),
        ({"mode": "dynamic", "bits": 4}, "bits must be 8, not 4"),
        ({"qat.ranges": "guessed", "qat.enabled": True}, "learned"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(QuantizeConfig, flags={key: (value, key) for key, value in options.items()})
    assert message in str(error.value) + "".join(getattr(error.value, "problems", ()))


def test_what_cannot_be_trained_is_refused() -> None:
    made = quantizer("digits_mlp", 64)
    made.calibration = None
    with pytest.raises(UsageError, match="quantization-aware training needs data") as missing:
        made.candidates()
    assert "--data" in missing.value.hint
    net = Net()
    net.input("x", ["n", 8, 4])
    net.add("LSTM", "x", net.weight(1, 64, 4), net.weight(1, 64, 16), hidden_size=16, out=["y"])
    net.output("y")
    data = from_arrays({"x": np.ones((20, 8, 4), np.float32)}, input_specs(session_of(net.build())))
    with pytest.raises(ModelError, match="no rounding to train") as idle:
        Quantizer(net.build(), config(mode="auto"), data, "vnni").candidates()
    assert "--qat" in idle.value.hint


def test_a_graph_without_gradients_is_refused_before_anything_is_tried(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be trained: no gradient for If"):
        quantize(
            SAMPLES / "twins" / "digits_mlp_if.onnx",
            output=tmp_path / "x.onnx",
            data=SAMPLES / "digits_mlp.calib.npz",
            config={"qat.enabled": True},
        )
    assert not list(tmp_path.iterdir())
