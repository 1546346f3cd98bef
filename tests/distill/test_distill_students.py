"""Students from files, several teachers, samples without labels, and what does not fit together."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from distill_nets import DATA, MODEL, QUICK, TEST, mlp, unlabelled

from modelkit.api import distill, quantize
from modelkit.errors import ConfigError, DataError, ModelError, UsageError
from modelkit.train.teacher import Ensemble, Teacher


def accuracy(report) -> float:
    assert report.after.quality is not None
    return report.after.quality["accuracy"]


def test_a_given_student_takes_the_teachers_place(tmp_path: Path) -> None:
    """Untrained, with names of its own and BatchNormalization that is folded at the end."""
    student = mlp(tmp_path / "small.onnx", names=("x", "image"), batchnorm=True)
    config = {**QUICK, "student": str(student), "training.epochs": 12, "training.learning_rate": 0.01}
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, test=TEST, config=config)
    assert accuracy(report) > 0.85
    assert report.method == "logits, small.onnx"
    model = onnx.load(tmp_path / "s.onnx")
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == [ort.InferenceSession(MODEL).get_outputs()[0].name]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert {d.target: d.numbers.get("before") for d in report.decisions if d.action == "renamed"}["image"] == "x"


@pytest.mark.parametrize("method", ["dist", "dkd"])
def test_other_losses_teach_too(method: str, tmp_path: Path) -> None:
    student = mlp(tmp_path / "small.onnx")
    config = {**QUICK, "student": str(student), "method": method, "training.epochs": 12}
    config["training.learning_rate"] = 0.01
    data = unlabelled(tmp_path / "inputs.npz")
    report = distill(MODEL, output=tmp_path / "s.onnx", data=data, test=TEST, config=config)
    assert accuracy(report) > 0.85
    assert method.upper() in report.history[0]["loss"]


def test_a_quantized_teacher_teaches(tmp_path: Path) -> None:
    quantize(MODEL, output=tmp_path / "int8.onnx", config={"bits": 8, "mode": "dynamic", "measure.seconds": 0.05})
    config = {**QUICK, "student": str(mlp(tmp_path / "small.onnx")), "training.epochs": 12}
    report = distill(tmp_path / "int8.onnx", output=tmp_path / "s.onnx", data=DATA, test=TEST, config=config)
    assert accuracy(report) > 0.85


def test_several_teachers_are_averaged(tmp_path: Path) -> None:
    others = [mlp(tmp_path / f"{n}.onnx", seed=n, softmax=n == 2) for n in (1, 2)]
    config = {**QUICK, "ratio": 0.25, "teachers": [str(MODEL)], "weights": [3, 1]}
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, test=TEST, config=config)
    assert accuracy(report) > 0.9
    members = [Teacher.load(path) for path in (MODEL, *others)]
    said = [member.run({"image": np.load(TEST)["image"]}) for member in members]
    arrays = [next(iter(each.values())) for each in said]
    mean = Ensemble(members, [2, 1, 1])
    found = mean.run({"image": np.load(TEST)["image"]})
    # Logits, logits and probabilities: the logarithm of these is a logit.
    wanted = 0.5 * arrays[0] + 0.25 * arrays[1] + 0.25 * np.log(np.maximum(arrays[2], 1e-30))
    assert list(found) == members[0].outputs
    np.testing.assert_allclose(next(iter(found.values())), wanted, rtol=1e-5, atol=1e-5)
    assert mean.key != Ensemble(members, [1, 1, 1]).key
    probabilities = Ensemble([members[2], members[2]], [1, 2]).run({"image": np.load(TEST)["image"]})
    np.testing.assert_allclose(next(iter(probabilities.values())), arrays[2], rtol=1e-5)


def test_samples_without_labels_help_a_few_that_have_them(tmp_path: Path) -> None:
    arrays = np.load(DATA)
    np.savez(tmp_path / "few.npz", image=arrays["image"][:40], labels=arrays["labels"][:40])
    more = unlabelled(tmp_path / "more.npz", slice(40, None))
    found = {}
    for name, config in (("few", {}), ("more", {"unlabelled": str(more)})):
        student = mlp(tmp_path / "small.onnx")
        config = {**QUICK, "student": str(student), "training.epochs": 15, **config}
        report = distill(MODEL, output=tmp_path / f"{name}.onnx", data=tmp_path / "few.npz", test=TEST, config=config)
        found[name] = accuracy(report)
    assert found["more"] > found["few"] + 0.05


def test_outputs_that_do_not_match_are_listed(tmp_path: Path) -> None:
    student = mlp(tmp_path / "small.onnx", (64, 24, 7), names=("image", "scores"))
    with pytest.raises(ModelError, match=r"the student's outputs are scores \[batch, 7\], the teacher's .*, 10\]"):
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**QUICK, "student": str(student)})
    student = mlp(tmp_path / "small.onnx", (32, 24, 10))
    with pytest.raises(ModelError, match=r"the student's inputs are image \[batch, 32\], the teacher's .*, 64\]"):
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**QUICK, "student": str(student)})
    student = mlp(tmp_path / "small.onnx", batch=1)
    with pytest.raises(ModelError, match="takes 1 samples at a time, the teacher's any number"):
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**QUICK, "student": str(student)})


def test_a_larger_student_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    student = mlp(tmp_path / "large.onnx", (64, 600, 600, 10))
    config = {**QUICK, "student": str(student), "training.epochs": 1}
    with pytest.raises(ModelError, match=r"has 406 k parameters, more than the teacher's 50\.8 k") as error:
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config=config)
    assert "--allow-larger" in str(error.value.hint)
    report = distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**config, "allow_larger": True})
    assert report.status == "done" and report.size_ratio > 1


def test_teachers_that_contradict_one_another_are_refused(tmp_path: Path) -> None:
    other = mlp(tmp_path / "other.onnx", (64, 24, 7))
    with pytest.raises(ModelError, match=r"teacher 2 has the outputs logits \[1, 7\], and the first has"):
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**QUICK, "teachers": [str(other)]})
    other = mlp(tmp_path / "other.onnx", names=("pixels", "logits"))
    with pytest.raises(ModelError, match="the teacher takes the input 'pixels', which the data lacks"):
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={**QUICK, "teachers": [str(other)]})
    with pytest.raises(ConfigError) as error:
        distill(MODEL, data=DATA, config={"teachers": [str(MODEL)], "weights": [1, 2, 3]})
    assert "weights has 3 numbers, and there are 2 teachers" in "\n".join(error.value.problems)


def test_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    arrays = np.load(DATA)
    np.savez(tmp_path / "wrong.npz", picture=arrays["image"])
    with pytest.raises(DataError) as error:
        distill(MODEL, output=tmp_path / "s.onnx", data=tmp_path / "wrong.npz", config=QUICK)
    assert "image" in "\n".join([error.value.message, *error.value.problems])
    np.savez(tmp_path / "labels.npz", image=arrays["image"], labels=arrays["labels"] + 5)
    with pytest.raises(DataError) as error:
        distill(MODEL, output=tmp_path / "s.onnx", data=tmp_path / "labels.npz", config=QUICK)
    assert "is not in 0 to 9" in error.value.message


def test_options_that_contradict_one_another_and_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        distill(MODEL, data=DATA, config={"student": "x.onnx", "ratio": 0.25})
    with pytest.raises(UsageError, match=r"x\.onnx"):
        distill(MODEL, output=tmp_path / "s.onnx", data=DATA, config={"student": str(tmp_path / "x.onnx")})
    student = mlp(tmp_path / "small.onnx")
    with pytest.raises(UsageError, match="input"):
        distill(MODEL, output=student, data=DATA, config={"student": str(student)}, force=True)
