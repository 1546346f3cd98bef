"""Fine-tuning saved graphs: weights change, everything else stays, pruned weights stay pruned."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from train_nets import SAMPLES

from modelkit.data.dataset import Dataset
from modelkit.data.open import open_dataset
from modelkit.errors import DataError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.measure.evaluate import evaluate_sessions
from modelkit.runtime import input_specs, make_session
from modelkit.train.config import FineTune, TrainOptions
from modelkit.train.finetune import finetune
from modelkit.train.teacher import Teacher


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def sample(name: str) -> ir.Model:
    model = load(SAMPLES / f"{name}.onnx").model
    normalise(model)
    return model


def samples(name: str, part: str, count: int | None = None) -> Dataset:
    specs = input_specs(make_session(SAMPLES / f"{name}.onnx"))
    data = open_dataset(SAMPLES / f"{name}.{part}.npz", specs)
    return data if count is None else data.subset(range(count))


def options(**given: Any) -> FineTune:
    return FineTune(**{"threads": 1, "device": "cpu", "epochs": 1, **given})


def clip(model: ir.Model, share: float) -> dict[str, np.ndarray]:
    """Set the smallest weights of each matrix to zero; return where the others are."""
    kept = {}
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        array = value.const_value.numpy()
        if array.ndim >= 2 and array.dtype == np.float32:
            kept[name] = np.abs(array) > np.quantile(np.abs(array), share)
            value.const_value = ir.tensor(np.where(kept[name], array, 0).astype(np.float32), name=name)
    return kept


def compare(name: str, model: ir.Model, count: int | None = None) -> tuple[float, float, float]:
    """Accuracy of the sample and of the model, and their agreement, on the test samples."""
    sessions = {"original": make_session(SAMPLES / f"{name}.onnx"), "model": session_of(model)}
    found = evaluate_sessions(sessions, samples(name, "eval", count).batches(64), reference="original")
    assert found["original"].quality and found["model"].quality and found["model"].fidelity
    agreement = found["model"].fidelity["top1_agreement"]
    assert agreement is not None
    return found["original"].quality["accuracy"], found["model"].quality["accuracy"], agreement


def test_pruned_weights_stay_zero_while_the_others_recover() -> None:
    model = sample("digits_mlp")
    kept = clip(model, 0.92)
    original, damaged, _ = compare("digits_mlp", model)
    names = [(node.name, node.op_type) for node in model.graph]
    decisions, history = finetune(model, samples("digits_mlp", "calib"), options(epochs=6), keep_zeros=True)
    _, repaired, _ = compare("digits_mlp", model)
    assert damaged < original - 0.1 and repaired > original - 0.03
    for name, mask in kept.items():
        array = model.graph.initializers[name].const_value.numpy()
        assert not array[~mask].any() and array[mask].all()
    assert {decision.target for decision in decisions} == set(model.graph.initializers)
    assert all(decision.action == "fine-tuned" for decision in decisions)
    assert decisions[0].numbers["zeros"] == int((~kept[decisions[0].target]).sum())
    assert [(node.name, node.op_type) for node in model.graph] == names
    assert history.metric == "accuracy"


def test_a_convolutional_net_follows_its_original_without_labels() -> None:
    model = sample("fashion_cnn")
    clip(model, 0.5)
    data = samples("fashion_cnn", "calib", 160)
    data.labels = None
    _, damaged, before = compare("fashion_cnn", model, 200)
    teacher = Teacher.load(SAMPLES / "fashion_cnn.onnx", threads=1)
    _, history = finetune(model, data, options(epochs=2, learning_rate=0.003), teacher=teacher, keep_zeros=True)
    _, repaired, after = compare("fashion_cnn", model, 200)
    assert after > before + 0.3 and repaired > damaged + 0.3
    assert history.metric == "agreement"


@pytest.mark.parametrize("name", ["language_gru", "language_transformer"])
def test_text_models_are_trained(name: str) -> None:
    model = sample(name)
    data = samples(name, "calib", 96)
    decisions, history = finetune(model, data, options(batch=32, learning_rate=3e-5))
    assert decisions and np.isfinite(history.epochs[-1].train_loss or np.nan)
    original, trained, _ = compare(name, model, 64)
    assert trained >= original - 0.05


def test_the_same_call_gives_the_same_bytes() -> None:
    found = []
    for _ in range(2):
        model = sample("fashion_cnn")
        clip(model, 0.5)
        finetune(
            model,
            samples("fashion_cnn", "calib", 64),
            options(batch=32, learning_rate=0.001, augment="shift_flip", mixup=0.2),
        )
        found.append(ir.to_proto(model).SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_without_labels_and_teacher_there_is_nothing_to_learn() -> None:
    data = samples("digits_mlp", "calib", 32)
    data.labels = None
    with pytest.raises(DataError, match="no labels") as caught:
        finetune(sample("digits_mlp"), data, TrainOptions())
    assert "the original model as a teacher" in (caught.value.hint or "")
