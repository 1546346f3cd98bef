"""Students that are written down: families, YAML files, what does not fit the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from modelkit.api import distill
from modelkit.config.resolve import resolve
from modelkit.distill.config import DistillConfig
from modelkit.errors import ConfigError, ModelError

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
QUICK = {"training.epochs": 3, "measure.seconds": 0.02, "baseline": False}


def taught(folder: Path, student: Any, teacher: str = "digits_mlp", **more: Any) -> dict[str, Any]:
    report = distill(
        SAMPLES / f"{teacher}.onnx",
        output=folder / "student.onnx",
        data=SAMPLES / f"{teacher}.calib.npz",
        test=SAMPLES / f"{teacher}.eval.npz",
        config={**QUICK, "student": student, **more},
    )
    return report.to_dict()


def test_a_family_by_name_learns_from_the_teacher(tmp_path: Path) -> None:
    report = taught(tmp_path, "mlp")
    made = onnx.load(tmp_path / "student.onnx")
    assert [i.name for i in made.graph.input] == ["image"]
    assert [o.name for o in made.graph.output] == [
        o.name for o in onnx.load(SAMPLES / "digits_mlp.onnx").graph.output
    ]
    assert not any(node.op_type == "BatchNormalization" for node in made.graph.node)
    assert report["status"] == "done"


@pytest.mark.parametrize(
    "student",
    [
        {"family": "cnn", "image": [1, 8, 8], "stem": {"width": 4}, "stages": [{"width": 8, "stride": 2}]},
        {"family": "transformer", "image": [1, 8, 8], "layers": 1, "width": 8, "heads": 2, "patch": 4},
    ],
    ids=["cnn", "transformer"],
)
def test_sizes_from_the_config(tmp_path: Path, student: dict[str, Any]) -> None:
    assert taught(tmp_path, student)["status"] == "done"
    weights = {tuple(w.dims) for w in onnx.load(tmp_path / "student.onnx").graph.initializer}
    assert ((8, 4, 3, 3) in weights) == (student["family"] == "cnn")


def test_an_architecture_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("family: mlp\nlayers: [{width: 12}]\nactivation: gelu\n")
    taught(tmp_path, str(path))
    shapes = [tuple(w.dims) for w in onnx.load(tmp_path / "student.onnx").graph.initializer]
    assert (12, 64) in shapes or (64, 12) in shapes


def test_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"a cnn reads images \[channels, height, width\], and a sample of 'image' is 64"
    ):
        taught(tmp_path, "cnn")
    with pytest.raises(ModelError, match="an mlp reads numbers, and 'tokens' holds tokens"):
        taught(tmp_path, "mlp", "language_transformer")
    with pytest.raises(ModelError, match=r"the student has .* parameters, more than the teacher's"):
        taught(tmp_path, {"family": "mlp", "layers": [{"width": 4096}]})
    with pytest.raises(ConfigError):
        resolve(DistillConfig, flags={"student": ({"family": "cnn", "stages": [{"op": "convv"}]}, "student")})
    assert not list(tmp_path.glob("*.onnx"))
