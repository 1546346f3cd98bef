"""Spaces around a model that are written out: each candidate's YAML builds it again, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from nas_inline import MLP, Inline, blobs, search

from modelkit.cli.app import run as cli
from modelkit.config.resolve import json_schema
from modelkit.errors import ConfigError, UsageError
from modelkit.nas.config import Constraints, Derived, NasConfig
from modelkit.nas.derived import Around
from modelkit.nas.space import key_of

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL = SAMPLES / "fashion_cnn.onnx"
FEW = {"training__epochs": 1, "derived__widths": [0.25, 1.0], "derived__bits": [8, 32]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search around a residual network, blocks, widths and bits among what differs."""
    folder = tmp_path_factory.mktemp("around")
    with np.load(SAMPLES / "fashion_cnn.calib.npz") as stored:
        np.savez(folder / "data.npz", image=stored["image"][:120], labels=stored["labels"][:120])
    search(folder, folder / "data.npz", model=MODEL, trials=4, warmup=2, **FEW)
    return folder


def test_the_yaml_of_each_candidate_builds_it_again(found: Path, tmp_path: Path) -> None:
    every = sorted((found / "best.pareto").glob("*.yaml"))
    for number, path in enumerate([every[0], every[-1]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        document = yaml.safe_load(path.read_text())
        again = search(folder, found / "data.npz", model=MODEL, space=document, trials=3, training__epochs=1)
        assert len(again["trials"]) == 1 and again["best"]["document"] == document
        assert (folder / "best.onnx").read_bytes() == path.with_suffix(".onnx").read_bytes()


def test_on_the_command_line(found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkit.nas.session.LocalRunner", lambda *_, **__: Inline())
    argv = ["nas", "--data", str(found / "data.npz"), "-o", str(tmp_path / "again.onnx"), "--quiet"]
    for_time = ["--set", "timing.seconds=0.001", "--epochs", "1", "--seed", "1"]
    first = found / "best.pareto" / "01.yaml"
    # What a config says of the space is set aside.
    config = tmp_path / "nas.yaml"
    config.write_text(yaml.safe_dump({"space": MLP}))
    assert cli([*argv, *for_time, str(MODEL), "--space", str(first), "--config", str(config)]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == first.with_suffix(".onnx").read_bytes()


def test_the_yaml_of_a_space_builds_its_network_again(tmp_path: Path) -> None:
    data = blobs(tmp_path / "data.npz")
    report = search(tmp_path, data)
    (tmp_path / "again").mkdir()
    document = report["pareto"][0]["document"]
    again = search(tmp_path / "again", data, space=document)
    assert len(again["trials"]) == 1
    built = (tmp_path / "again" / "best.onnx").read_bytes()
    assert built == (tmp_path / "best.pareto" / "01.onnx").read_bytes()


@pytest.fixture(scope="module")
def model() -> Any:
    from modelkit.graph.load import load
    from modelkit.graph.normalise import normalise

    loaded = load(MODEL).model
    normalise(loaded)
    return loaded


def around(model: Any, document: dict[str, Any] | None) -> Around:
    return Around(model, "0123", Derived(), Constraints(), document)


def test_what_is_written_out_may_leave_choices(model: Any) -> None:
    whole = around(model, {"family": "derived"})
    assert whole.space.size == 1
    assert whole.look(()).macs == around(model, None).look(around(model, None).first()[0]).macs
    some = around(
        model,
        {
            "family": "derived",
            "drop": {"node_add_70": [True, False], "node_add_151": True},
            "widths": {"node_Conv_158": [5, 48], "node_Conv_152": 9},
        },
    )
    documents = [some.space.decode(genome) for genome in some.space.all()]
    assert len({key_of(each) for each in documents}) == 3  # a group is not there where its block is left out
    assert {each["widths"].get("node_Conv_158") for each in documents} == {5, 48, None}
    assert len({some.look(genome).macs for genome in some.space.all()}) == 3


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"widhts": {}}, "space.widhts: 'widhts' is unknown; did you mean 'widths'?"),
        ({"widths": {"node_Conv_15": 8}}, "space.widths.node_Conv_15: this model has no such part; 'node_Conv_15'"),
        (
            {"widths": {"node_Conv_152": 17}},
            "space.widths.node_Conv_152: the group may keep 1 to 16 channels, not 17; the nearest is 16",
        ),
        ({"widths": {"node_Conv_152": []}}, "space.widths.node_Conv_152: an empty list of choices leaves nothing"),
        ({"widths": [8]}, "space.widths: must name parts of the model and their values"),
        ({"drop": {"node_add_70": 1}}, "space.drop.node_add_70: must be true or false, not 1"),
        ({"bits": {"node_add_70": 8}}, "space.bits.node_add_70: this model has no such part"),
        (
            {"drop": {"node_add_70": True}, "widths": {"node_Conv_158": 8}},
            "space.widths.node_Conv_158: it lies in the block node_add_70, which is left out",
        ),
    ],
)
def test_what_is_refused(model: Any, document: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        around(model, {"family": "derived", **document})
    assert caught.value.problems[0].startswith(problem)


def test_bits_that_there_are_not(model: Any) -> None:
    name = next(v.path[1] for v in Around(model, "0", Derived(bits=[8, 32]), Constraints()).space.variables[-1:])
    with pytest.raises(ConfigError) as caught:
        around(model, {"family": "derived", "bits": {name: [8, 5]}})
    assert caught.value.problems == [f"space.bits.{name}: bits may be 32, 8 or 4, not 5"]


def test_another_model_none_and_a_file_that_is_no_space(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="is one around another model: its hash begins 01, that of this one 0123"):
        around(model, {"family": "derived", "model": "01"})
    with pytest.raises(UsageError, match="a space of family derived is one around a saved model, and none is given"):
        search(tmp_path, space={"family": "derived"})
    (tmp_path / "odd.yaml").write_text("layers: 3\n")
    argv = ["nas", "--data", str(blobs(tmp_path / "d.npz")), "--space"]
    assert cli([*argv, str(tmp_path / "odd.yaml")]) == 2
    assert "family is missing: there are mlp, cnn, transformer, cell, derived" in capsys.readouterr().err
    assert cli([*argv, str(tmp_path / "none.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_schema_knows_them() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(NasConfig, "nas"))
    good = {"family": "derived", "model": "ab", "widths": {"a": [4, 8]}, "drop": {"b": True}, "bits": {"w": 8}}
    assert validator.is_valid({"space": good})
    assert not validator.is_valid({"space": {**good, "bits": {"w": 5}}})
    assert not validator.is_valid({"space": {**good, "depth": 1}})
