"""What cannot be searched, from the command line: the exit code, one line that names the thing, and a hint."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from nas_inline import MLP, Inline, blobs

from modelkit.cli.app import run as cli
from modelkit.jobs.protocol import Task

Nas = Callable[..., tuple[int, str]]


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nas:
    """`modelkit nas` on a small space, with what is given besides; the exit code, and what it said in one line."""
    monkeypatch.setattr("modelkit.nas.session.LocalRunner", lambda *_, **__: Inline())

    def run(*more: str, space: dict[str, Any] = MLP, samples: int = 160) -> tuple[int, str]:
        config, data = tmp_path / "nas.yaml", blobs(tmp_path / "data.npz", samples)
        options = {"training": {"epochs": 1}, "timing": {"seconds": 0.001}, "trials": 4}
        config.write_text(yaml.safe_dump({"space": space, **options}))
        capsys.readouterr()
        code = cli(["nas", "--config", str(config), "--data", str(data), "-o", str(tmp_path / "best.onnx"), *more])
        return code, " ".join(capsys.readouterr().err.split())

    return run


def test_a_space_that_a_constraint_empties(nas: Nas) -> None:
    code, said = nas("--max-parameters", "20")
    assert code == 2
    assert (
        "error: constraints.max_parameters rules out 10 of all 10 architectures; the nearest one: 65 are more than"
        in said
    )
    assert "hint: widen the space or the constraints" in said


def test_constraints_and_ranges_that_contradict_themselves(nas: Nas) -> None:
    code, said = nas("--set", "constraints.min_macs=50", "--max-macs", "10")
    assert code == 2 and "min_macs 50 is above max_macs 10: nothing can keep both" in said
    code, said = nas(space={"family": "mlp", "layers": [{"width": {"from": 9, "to": 4}}]})
    assert code == 2 and "space.layers.0.width: from 9 is above to 4, which leaves nothing to choose" in said
    code, said = nas(space={"family": "mlp", "activation": []})
    assert code == 2 and "space.activation: an empty list of choices leaves nothing to choose" in said


def test_an_unknown_operation(nas: Nas) -> None:
    code, said = nas(space={"family": "cell", "ops": ["skip", "conv7x7"]})
    assert code == 2
    assert "space.edges.0-1: 'conv7x7' is unknown; did you mean 'conv5x5'? there are none, skip, conv1x1" in said


def test_too_few_samples_to_divide(nas: Nas) -> None:
    code, said = nas(samples=20)
    assert code == 2
    assert "'data.npz' has 20 samples, too few to divide: validation would have 4 of them, and needs 8" in said
    assert "hint: give 40 samples or more, or other shares" in said


def test_a_time_too_short_for_one_trial(nas: Nas) -> None:
    code, said = nas("--time", "0.05s")
    assert code == 1
    assert "the time is too short for one trial: one takes 0.1 s here, and --time is 0.05 s" in said
    assert "hint: give --time 1s for about ten trials, or fewer training.epochs" in said


def test_a_study_of_another_space(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(task: Task) -> None:
        if task.name.startswith("trial 2"):
            raise KeyboardInterrupt

    monkeypatch.setattr("modelkit.nas.session.LocalRunner", lambda *_, **__: Inline(stop))
    code, _ = nas()
    assert code == 130
    code, said = nas("--resume", space={**MLP, "activation": ["relu", "elu"]})
    assert code == 2 and "best.nas' belongs to another space: its hash is" in said
    assert "hint: give the space that it was begun with, or leave --resume out" in said


def test_a_storage_that_cannot_be_reached(nas: Nas) -> None:
    code, said = nas("--storage", "sqlite:////no/such/folder/study.db")
    assert code == 5
    assert "the storage 'sqlite:////no/such/folder/study.db' cannot be reached" in said
    assert "hint: is the server running, does the folder exist, and may this user write there?" in said
    code, said = nas("--storage", "mysql+nosuchdriver://me:secret@host/x")
    assert code == 2 and "secret" not in said
    code, said = nas("--storage", "study.db")
    assert code == 2 and "'study.db' is no URL of a database" in said


@pytest.mark.skipif(importlib.util.find_spec("psycopg") is not None, reason="the driver is installed here")
def test_a_storage_whose_driver_is_not_installed(nas: Nas) -> None:
    code, said = nas("--storage", "postgresql+psycopg://me:secret@host/x")
    assert code == 2
    assert "the storage 'postgresql+psycopg://me@host/x' needs the package psycopg, which is not installed" in said
    assert "hint: pip install 'psycopg[binary]'" in said
