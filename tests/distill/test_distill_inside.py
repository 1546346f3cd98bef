"""Tensors inside: which are paired, that following them teaches, and that nothing of it is in the file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from distill_nets import DATA, MODEL, QUICK, SAMPLES, TEST, mlp, unlabelled

from modelkit.api import distill
from modelkit.channels.cutting import prune_channels
from modelkit.data.open import open_dataset
from modelkit.distill.config import DistillConfig
from modelkit.distill.pairing import pair
from modelkit.errors import ModelError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.runtime import input_specs


def sample(name: str):
    model = load(SAMPLES / f"{name}.onnx").model
    normalise(model)
    data = open_dataset(SAMPLES / f"{name}.calib.npz", specs=input_specs(session_of(model)))
    return model, data


def halved(model):
    student = model.clone()
    config = DistillConfig.model_validate({"structure": {"importance": "l2", "repair": "none", "ranking": "equal"}})
    prune_channels(student, config, 0.5, None)
    return student


def test_the_ends_of_stages_of_a_derived_student_follow_their_own_kind() -> None:
    model, data = sample("fashion_cnn")
    hints, decisions = pair(halved(model), model, data, kind="features", named={}, most=3)
    assert [hint.output for hint in hints] == [hint.teacher for hint in hints]
    shapes = [(d.numbers["shape"], d.numbers["teacher_shape"]) for d in decisions]
    # One for each of the resolutions 28, 14 and 7.
    assert [own.split(", ")[-1] for own, _ in shapes] == ["28]", "14]", "7]"]
    assert all(own.split(", ")[2:] == theirs.split(", ")[2:] for own, theirs in shapes)


def test_sequences_are_paired_over_their_depth() -> None:
    model, data = sample("language_transformer")
    hints, _ = pair(halved(model), model, data, kind="features", named={}, most=4)
    assert len(hints) == 4 and all(hint.output == hint.teacher for hint in hints)
    order = [str(value.name) for node in model.graph for value in node.outputs]
    places = [order.index(hint.teacher) for hint in hints]
    assert places == sorted(places)


def test_strangers_are_paired_by_resolution_and_depth(tmp_path: Path) -> None:
    student = load(mlp(tmp_path / "s.onnx", (64, 32, 32, 32, 10))).model
    teacher, data = sample("digits_mlp")
    hints, _ = pair(student, teacher, data, kind="features", named={}, most=3)
    ends = [value.name for node in teacher.graph for value in node.outputs if node.op_type == "Relu"]
    assert [hint.output for hint in hints] == ["relu0", "relu1", "relu2"]
    assert [hint.teacher for hint in hints] == [ends[0], ends[1], ends[1]]


def test_attention_is_found_where_a_softmax_is_over_keys() -> None:
    model, data = sample("language_transformer")
    hints, decisions = pair(halved(model), model, data, kind="attention", named={}, most=3)
    assert len(hints) == 2 and {hint.kind for hint in hints} == {"attention"}
    assert all(d.numbers["teacher_shape"] == "[2, 4, 64, 64]" for d in decisions)
    model, data = sample("fashion_cnn")
    with pytest.raises(ModelError, match="no attention of the same size is in both"):
        pair(halved(model), model, data, kind="attention", named={}, most=3)


@pytest.mark.parametrize("most", [1, 2])
def test_features_teach_and_their_projections_are_dropped(most: int, tmp_path: Path) -> None:
    student = mlp(tmp_path / "small.onnx", (64, 24, 24, 10))
    config = {**QUICK, "student": str(student), "method": "features", "training.epochs": 12}
    config |= {"features.most": most, "training.learning_rate": 0.01}
    data = unlabelled(tmp_path / "inputs.npz")
    report = distill(MODEL, output=tmp_path / "s.onnx", data=data, test=TEST, config=config)
    assert report.after.quality is not None and report.after.quality["accuracy"] > 0.85
    assert report.history[0]["loss"] == "distillation (KL) + features"
    assert len([d for d in report.decisions if d.action == "paired"]) == most
    before, after = (onnx.load(path).graph for path in (student, tmp_path / "s.onnx"))
    assert {i.name: list(i.dims) for i in before.initializer} == {i.name: list(i.dims) for i in after.initializer}
    assert len(after.output) == 1 and len(after.node) == len(before.node)


def test_attention_teaches(tmp_path: Path) -> None:
    model = SAMPLES / "language_transformer.onnx"
    arrays = np.load(SAMPLES / "language_transformer.calib.npz")
    np.savez(tmp_path / "few.npz", tokens=arrays["tokens"][:128])
    config = {**QUICK, "method": "attention", "ratio": 0.5, "training.epochs": 2}
    report = distill(model, output=tmp_path / "s.onnx", data=tmp_path / "few.npz", config=config)
    losses = [epoch["loss"] for epoch in report.history[0]["epochs"]]
    assert losses[-1] < losses[0] and report.history[0]["loss"].endswith("+ attention")


def test_names_are_paired_as_they_are_given_and_wrong_ones_are_told(tmp_path: Path) -> None:
    student = mlp(tmp_path / "small.onnx", (64, 24, 24, 10))
    teacher, _ = sample("digits_mlp")
    name = next(str(node.outputs[0].name) for node in teacher.graph if node.op_type == "Relu")
    config = {**QUICK, "student": str(student), "method": "features", "training.epochs": 1}

    def run(pairs: dict[str, str], target: str = "s.onnx"):
        return distill(MODEL, output=tmp_path / target, data=DATA, config={**config, "features.pairs": pairs})

    told = [d for d in run({"relu1": name}).decisions if d.action == "paired"]
    assert [(d.target, name in d.reason) for d in told] == [("relu1", True)]
    with pytest.raises(ModelError, match="the student has no tensor 'rellu1' to pair") as error:
        run({"rellu1": name}, "t.onnx")
    assert "relu1" in str(error.value.hint)
    with pytest.raises(ModelError, match=f"the teacher has no tensor '{name}x' to pair") as error:
        run({"relu1": f"{name}x"}, "t.onnx")
    assert name in str(error.value.hint)
    assert not (tmp_path / "t.onnx").exists()
