"""Teachers whose outputs are no classes: regression, several outputs, embeddings."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from distill_nets import DATA, QUICK, mlp, unlabelled

from modelkit.api import distill
from modelkit.report import beside

CONFIG = {**QUICK, "training.epochs": 15, "training.learning_rate": 0.01}


def outputs(path: Path) -> list[np.ndarray]:
    return ort.InferenceSession(path).run(None, {"image": np.load(DATA)["image"]})


@pytest.mark.parametrize("numbers", ["auto", "huber", "cosine"])
def test_an_embedding_is_followed(numbers: str, tmp_path: Path) -> None:
    teacher, student = mlp(tmp_path / "t.onnx", (64, 96, 32), seed=1), mlp(tmp_path / "s.onnx", (64, 24, 32), seed=2)
    config = {**CONFIG, "student": str(student), "numbers": numbers}
    report = distill(teacher, output=tmp_path / "d.onnx", data=unlabelled(tmp_path / "x.npz"), config=config)
    named = {"auto": "KL", "huber": "Huber", "cosine": "cosine"}[numbers]
    assert report.history[0]["loss"] == f"distillation ({named})"
    angles = []
    for path in (student, tmp_path / "d.onnx"):
        pairs = zip(outputs(teacher)[0], outputs(path)[0], strict=True)
        angles.append(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))
    assert angles[1] > 0.9 > angles[0]


def test_a_regression_is_told_by_its_error(tmp_path: Path) -> None:
    teacher = mlp(tmp_path / "t.onnx", (64, 96, 1), seed=1)
    x = np.load(DATA)["image"]
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(x))
    np.savez(tmp_path / "x.npz", image=x, labels=(outputs(teacher)[0][:, 0] + noise).astype(np.float32))
    config = {**CONFIG, "student": str(mlp(tmp_path / "s.onnx", (64, 16, 1), seed=2)), "baseline": True}
    report = distill(teacher, output=tmp_path / "d.onnx", data=tmp_path / "x.npz", config=config)
    assert report.history[0]["loss"] == "mse + distillation (MSE)"
    assert report.after.quality is not None and next(iter(report.after.quality)) == "rmse"
    assert report.after.quality["r2"] > 0.8
    assert "RMSE against the student alone" in beside.verdict(report)


def test_all_outputs_are_followed(tmp_path: Path) -> None:
    teacher = mlp(tmp_path / "t.onnx", (64, 96, 10), more=(4, 1), seed=1)
    student = mlp(tmp_path / "s.onnx", (64, 32, 10), more=(4, 1), seed=2)
    config = {**CONFIG, "student": str(student), "numbers": "mse"}
    distill(teacher, output=tmp_path / "d.onnx", data=unlabelled(tmp_path / "x.npz"), config=config)
    for wanted, before, after in zip(outputs(teacher), outputs(student), outputs(tmp_path / "d.onnx"), strict=True):
        errors = [float(((wanted - found) ** 2).mean() / wanted.var()) for found in (before, after)]
        assert errors[1] < 0.2 < 0.5 < errors[0]
