"""Training after a cut: through the command's function, on a real model and its data."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelkit.api import prune
from modelkit.errors import UsageError
from modelkit.prune.tuning import Tuner
from modelkit.train.config import FineTune

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL, DATA, TEST = (SAMPLES / f"digits_mlp.{end}" for end in ("onnx", "calib.npz", "eval.npz"))
QUICK = {"measure.seconds": 0.05, "finetune.learning_rate": 0.001, "finetune.threads": 1}


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    arrays = {name: array for name, array in np.load(DATA).items() if name != "labels"}
    np.savez(tmp_path / "inputs.npz", **arrays)
    return tmp_path / "inputs.npz"


def zeros(path: Path) -> float:
    weights = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if len(t.dims) == 2]
    return sum((w == 0).sum() for w in weights) / sum(w.size for w in weights)


def test_training_brings_back_what_magnitude_lost_and_zeros_stay(tmp_path: Path) -> None:
    accuracy = {}
    for epochs in (0, 4):
        target = tmp_path / f"{epochs}.onnx"
        config = {"sparsity": 0.9, "method": "magnitude", "finetune.epochs": epochs, **QUICK}
        report = prune(MODEL, output=target, data=DATA, test=TEST, config=config)
        assert report.after.quality is not None
        accuracy[epochs] = report.after.quality["accuracy"]
        assert zeros(target) == pytest.approx(0.9, abs=1e-3)
    assert accuracy[4] > accuracy[0] + 0.1
    whole = [d for d in report.decisions if d.action == "fine-tuned" and d.target == "model"]
    assert len(whole) == 1 and whole[0].numbers["epochs"] == 4
    assert {"0.weight", "2.weight", "4.weight"} <= {d.target for d in report.decisions if d.action == "fine-tuned"}


def test_channels_are_trained_on_after_each_round(tmp_path: Path) -> None:
    config = {"channels": 0.7, "structure.rounds": 2, "structure.repair": "none", "finetune.epochs": 1, **QUICK}
    report = prune(MODEL, output=tmp_path / "a.onnx", data=DATA, test=TEST, config=config)
    assert len([d for d in report.decisions if d.action == "fine-tuned" and d.target == "model"]) == 2
    assert len(report.candidates) == 1
    assert report.after.quality is not None and report.after.quality["accuracy"] > 0.8


def test_without_labels_self_distillation_is_offered_and_works(tmp_path: Path, unlabelled: Path) -> None:
    config = {"sparsity": 0.9, "method": "magnitude", "finetune.epochs": 3, **QUICK}
    with pytest.raises(UsageError, match=r"fine-tuning needs labels, and 'inputs.npz' has none") as error:
        prune(MODEL, output=tmp_path / "a.onnx", data=unlabelled, config=config)
    assert "--set finetune.loss=distill" in str(error.value.hint)
    assert not (tmp_path / "a.onnx").exists()
    distilled = prune(
        MODEL,
        output=tmp_path / "a.onnx",
        data=unlabelled,
        test=TEST,
        config={**config, "finetune.loss": "distill", "finetune.epochs": 6},
    )
    assert distilled.after.quality is not None and distilled.after.quality["accuracy"] > 0.85


def test_a_pattern_takes_one_step_and_all_epochs(tmp_path: Path) -> None:
    config = {"pattern": "2:4", "method": "magnitude", "steps": 3, "finetune.epochs": 3, **QUICK}
    report = prune(MODEL, output=tmp_path / "a.onnx", data=DATA, test=TEST, config=config)
    whole = [d for d in report.decisions if d.action == "fine-tuned" and d.target == "model"]
    assert [d.numbers["epochs"] for d in whole] == [3]


def test_training_needs_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fine-tuning needs data"):
        prune(MODEL, output=tmp_path / "a.onnx", config={"sparsity": 0.5, "finetune.epochs": 1})


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(3, 1, [3]), (9, 3, [2, 2, 5]), (10, 3, [2, 2, 6]), (1, 3, [1, 1, 1]), (24, 2, [12, 12])],
)
def test_steps_share_the_epochs(epochs: int, steps: int, expected: list[int]) -> None:
    assert Tuner(None, FineTune(epochs=epochs), None, 0).share_out(steps) == expected  # type: ignore[arg-type]
