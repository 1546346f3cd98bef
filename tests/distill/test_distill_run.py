"""Distilling through the command's function: the student, its baseline, the report, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelkit.api import distill
from modelkit.errors import ModelError, UsageError
from modelkit.report import beside, markdown

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL, DATA, TEST = (SAMPLES / f"digits_mlp.{end}" for end in ("onnx", "calib.npz", "eval.npz"))
QUICK = {
    **{"measure.seconds": 0.05, "training.epochs": 4, "training.learning_rate": 0.003, "training.threads": 1},
    **{"ratio": 0.25, "structure.repair": "none", "structure.importance": "l2"},
}


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    arrays = {name: array for name, array in np.load(DATA).items() if name != "labels"}
    np.savez(tmp_path / "inputs.npz", **arrays)
    return tmp_path / "inputs.npz"


def test_the_student_is_small_and_stands_beside_the_teacher_and_itself_alone(tmp_path: Path) -> None:
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, test=TEST, config=QUICK)
    assert report.status == "done"
    onnx.checker.check_model(str(tmp_path / "s.onnx"))
    assert report.after.size["parameters"] < 0.4 * report.before.size["parameters"]
    assert report.after.quality is not None and report.after.quality["accuracy"] > 0.9
    assert [entry["name"] for entry in report.beside] == ["student alone"]
    alone = report.beside[0]
    assert alone["size"]["parameters"] == report.after.size["parameters"]
    assert alone["quality"]["accuracy"] > 0.8 and alone["latency"]["median_ms"] > 0
    assert {c["name"]: c["status"] for c in report.candidates}["student alone"] == "compared"
    # Both were trained for as long, from the same weights, and the one alone without the teacher.
    told, other = report.history, json.loads((tmp_path / "s.report.json").read_text())["beside"]
    assert other[0]["name"] == "student alone" and "KL" in told[0]["loss"]
    head, rows = beside.table(report)
    assert [row[0] for row in rows] == ["teacher", "student alone", "distilled"]
    assert "accuracy" in head and "student alone" in beside.verdict(report)
    assert f"## {beside.TITLE}" in markdown.render(report)
    # Nothing but what the teacher says is kept.
    assert sorted(path.name for path in (tmp_path / ".modelkit").iterdir()) == ["kept"]


def test_labels_are_not_needed(tmp_path: Path, unlabelled: Path) -> None:
    report = distill(MODEL, output=tmp_path / "s.onnx", data=unlabelled, test=TEST, config=QUICK)
    assert [entry["name"] for entry in report.beside] == ["student, untrained"]
    assert report.after.quality is not None and report.after.quality["accuracy"] > 0.9
    assert report.after.quality["accuracy"] > report.beside[0]["quality"]["accuracy"] + 0.1
    assert beside.verdict(report).startswith("yes: +")


def test_without_labels_to_test_on_agreement_answers(tmp_path: Path, unlabelled: Path) -> None:
    report = distill(MODEL, output=tmp_path / "s.onnx", data=unlabelled, config=QUICK)
    assert report.after.quality is None and report.fidelity is not None
    assert report.fidelity["top1_agreement"] > report.beside[0]["fidelity"]["top1_agreement"] + 0.1
    assert "agreement with the teacher" in beside.verdict(report)


def test_the_baseline_can_be_left_out(tmp_path: Path) -> None:
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**QUICK, "baseline": False})
    assert not report.beside and len(report.candidates) == 1
    assert "beside" not in report.to_dict()


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name / "s.onnx" for name in "ab"]
    for file in files:
        distill(MODEL, output=file, data=DATA, config={**QUICK, "training.epochs": 2, "baseline": False})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_data_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a student learns from data") as error:
        distill(MODEL, output=tmp_path / "s.onnx", data=None, config=QUICK)  # type: ignore[arg-type]
    assert "--data" in str(error.value.hint)


def test_a_teacher_that_nothing_can_be_cut_out_of_asks_for_a_student(tmp_path: Path) -> None:
    from modelkit.api import quantize

    config = {"bits": 8, "mode": "dynamic", "measure.seconds": 0.05}
    quantize(MODEL, output=tmp_path / "int8.onnx", config=config)
    with pytest.raises(ModelError, match="no student can be derived from this teacher: ") as error:
        distill(tmp_path / "int8.onnx", output=tmp_path / "s.onnx", data=DATA, config=QUICK)
    assert "--student FILE" in str(error.value.hint)


def test_a_student_cannot_be_arbitrarily_small(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="that much cannot be taken out") as error:
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**QUICK, "ratio": 0.001})
    assert "--ratio" in str(error.value.hint)


def test_an_assistant_learns_first_and_the_student_from_it(tmp_path: Path) -> None:
    config = {**QUICK, "assistant": "auto", "baseline": False}
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, test=TEST, config=config)
    told = [decision for decision in report.decisions if decision.target == "assistant"]
    assert len(told) == 1 and told[0].reason.startswith("50.00 % of the channels of the teacher")
    assert told[0].numbers["epochs"] == QUICK["training.epochs"]
    assert report.after.quality is not None and report.after.quality["accuracy"] > 0.9


def test_a_teacher_can_be_its_own_student(tmp_path: Path, unlabelled: Path) -> None:
    """What it knows of the data already is kept: it never ends worse than it began."""
    config = {**QUICK, "ratio": 1, "training.epochs": 1}
    report = distill(MODEL, output=tmp_path / "s.onnx", data=unlabelled, test=TEST, config=config)
    assert report.method == "logits, the teacher's own network"
    assert report.fidelity is not None and report.fidelity["top1_agreement"] > 0.99


def test_samples_are_varied_and_the_teacher_answers_for_what_they_became(tmp_path: Path) -> None:
    """Function matching: mixed inputs have no label, but the teacher has an answer."""
    config = {**QUICK, "training.mixup": 1.0, "training.loss": "distill", "baseline": False}
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, test=TEST, config=config)
    assert report.after.quality is not None and report.after.quality["accuracy"] > 0.85
    # Only what it says of the samples that validate does not change, and is kept.
    [kept] = (tmp_path / ".modelkit" / "kept").iterdir()
    assert len(np.load(kept)) < 100


@pytest.mark.parametrize("bits", [8, 4])
def test_a_student_of_integers_follows_with_the_rounding_in_it(bits: int, tmp_path: Path) -> None:
    config = {**QUICK, "bits": bits, "qat.epochs": 2, "qat.threads": 1, "qat.learning_rate": 0.001}
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, test=TEST, config=config)
    assert report.after.quality is not None and report.after.quality["accuracy"] > 0.88
    kinds = {node.op_type for node in onnx.load(tmp_path / "s.onnx").graph.node}
    assert "DequantizeLinear" in kinds
    losses = [history["loss"] for history in report.history]
    assert losses == ["cross-entropy + distillation (KL)", "distillation (KL)"]
    assert [d.numbers["epochs"] for d in report.decisions if d.action == "trained with the rounding"] == [2]
    # What stands beside it is one of integers too.
    alone = report.beside[0]["size"]["file_bytes"]
    assert alone == pytest.approx(report.after.size["file_bytes"], rel=0.02)
    assert alone < 0.2 * report.before.size["file_bytes"]
