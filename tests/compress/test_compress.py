"""Compressing: fewer weights and values as long as the budget holds, and every candidate told with its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelkit import api
from modelkit.cli.app import run
from modelkit.compress.search import FIRST, next_density
from modelkit.errors import BudgetError, ConfigError, UsageError
from modelkit.graph.load import load, packed_names
from modelkit.train.sparse import sparsity_at

SAMPLES = Path(__file__).parents[2] / "sample_models"
MLP = SAMPLES / "digits_mlp.onnx"
DATA = {"data": SAMPLES / "digits_mlp.calib.npz", "test": SAMPLES / "digits_mlp.eval.npz"}
QUICK = {
    **{"pack": "load", "measure.seconds": 0.01, "pruning.epochs": 4, "sharing.epochs": 1},
    **{"pruning.learning_rate": 0.003, "sharing.learning_rate": 0.001},
}


@pytest.mark.parametrize("least", [0.6, 0.3, 0.07, 0.011])
def test_the_search_ends_just_above_what_the_budget_needs(least: float) -> None:
    fits: dict[float, bool] = {}
    while (density := next_density(fits, 30)) is not None:
        assert density not in fits and 0 < density <= 1
        fits[density] = density >= least
    best = min(density for density, ok in fits.items() if ok)
    assert least <= best <= 1.25 * least and next(iter(fits)) == FIRST


def test_the_search_gives_up_and_keeps_to_its_trials() -> None:
    fits: dict[float, bool] = {}
    while (density := next_density(fits, 30)) is not None:
        fits[density] = False
    assert max(fits) == 1 and len(fits) <= 6
    assert next_density({0.1: True, 0.05: True}, 2) is None


def test_sparsity_rises_and_then_stays() -> None:
    shares = [sparsity_at(step, 100, 0.2, 0.9) for step in range(101)]
    assert shares == sorted(shares) and shares[0] == pytest.approx(0.2) and shares[60] == shares[100] == 0.9
    assert sparsity_at(5, 100, 0.95, 0.9) == 0.9


def test_so_many_zeros_and_values_in_an_ordinary_file(tmp_path: Path) -> None:
    target = tmp_path / "small.onnx"
    report = api.compress(MLP, output=target, **DATA, config={**QUICK, "sparsity": 0.9, "values": 8, "pack": "size"})
    assert report.before.quality is not None and report.after.quality is not None
    assert report.after.quality["accuracy"] > report.before.quality["accuracy"] - 0.04
    assert report.before.file["bytes"] > 15 * report.after.file["bytes"] and packed_names(target)
    weights = [
        value.const_value.numpy()  # type: ignore[union-attr]
        for value in load(target).model.graph.initializers.values()
        if len(value.shape or ()) == 2
    ]
    # What is left of all that there was: channels that nothing reads are gone.
    left = sum(np.count_nonzero(each) for each in weights)
    assert left <= 0.1 * (256 * 64 + 128 * 256 + 10 * 128) and all(len(np.unique(each)) <= 8 for each in weights)
    said = {(each.target, each.action) for each in report.decisions}
    assert {("functions", "added"), ("0.weight", "pruned"), ("0.weight", "packed")} <= said
    packed = next(each for each in report.decisions if each.target == "0.weight" and each.action == "packed")
    layer = next(each for each in report.layers if "0.weight" in each["weights"])
    # The layer's bytes are those of the packed weight and of its bias.
    assert packed.numbers["bytes"] < layer["after"]["bytes"] <= packed.numbers["bytes"] + 1024  # type: ignore[operator]
    assert float(packed.numbers["over_entropy"]) < 1.5


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        config = {
            **QUICK,
            "sparsity": 0.8,
            "values": 4,
            "pruning.epochs": 1,
            "pruning.threads": 1,
            "sharing.threads": 1,
        }
        api.compress(MLP, output=tmp_path / f"{name}.onnx", **DATA, config=config)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_inside_a_budget_the_smallest_is_found(tmp_path: Path) -> None:
    config = {**QUICK, "budget.max_drop": 0.05, "trials": 3, "pruning.epochs": 2}
    report = api.compress(MLP, output=tmp_path / "small.onnx", **DATA, config=config)
    assert report.candidates[0]["name"] == "90.00% zeros, 16 values" and len(report.candidates) > 3
    good = [each for each in report.candidates if each["status"] in ("chosen", "tried")]
    chosen = next(each for each in good if each["status"] == "chosen")
    # Within 2 % of the smallest the more faithful one is taken.
    assert chosen["size"]["file_bytes"] <= 1.02 * min(each["size"]["file_bytes"] for each in good)
    assert all(each["quality"] and each["size"] for each in report.candidates)


def test_a_budget_that_cannot_be_met_keeps_the_best_beside(tmp_path: Path) -> None:
    config = {**QUICK, "sparsity": 0.99, "values": 4, "budget.max_drop": 0.0001, "pruning.epochs": 1}
    with pytest.raises(BudgetError, match="nothing that was tried is inside the budget"):
        api.compress(MLP, output=tmp_path / "small.onnx", **DATA, config=config)
    assert not (tmp_path / "small.onnx").exists()
    report = json.loads((tmp_path / "small.report.json").read_text())
    assert report["status"] == "budget not met" and report["after"]["size"]["file_bytes"] > 0
    best = tmp_path / "small.missed.onnx"
    assert best.stat().st_size == report["after"]["file"]["bytes"] and packed_names(best)
    assert "small.missed.onnx" in " ".join(report["notes"])


def test_without_labels_the_model_itself_is_followed(tmp_path: Path) -> None:
    inputs = {key: value for key, value in np.load(DATA["data"]).items() if key != "labels"}
    np.savez(tmp_path / "x.npz", **inputs)
    report = api.compress(
        MLP, output=tmp_path / "small.onnx", data=tmp_path / "x.npz", config={**QUICK, "sparsity": 0.8, "values": 16}
    )
    assert report.fidelity is not None and report.fidelity["top1_agreement"] > 0.85


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({}, UsageError, "sparsity: auto takes out as much as the budget allows, and none is set"),
        ({"sparsity": 1.0}, ConfigError, "must be at least 0 and below 1"),
        ({"values": 2}, ConfigError, "must be from 3 to 255, or auto, not 2"),
        ({"pack": "off"}, ConfigError, "pack"),
        ({"sparsity": 0.5, "include": ["nowhere"]}, UsageError, "include: the pattern 'nowhere' matches no weight"),
    ],
)
def test_what_cannot_be_meant(
    config: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        api.compress(MLP, output=tmp_path / "x.onnx", **DATA, config={**QUICK, **config})
    problems = getattr(caught.value, "problems", ())
    assert message in " ".join([str(caught.value), *map(str, problems)])
    assert not list(tmp_path.glob("x*"))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compress", str(MLP), "-o", str(tmp_path / "x.onnx"), "--sparsity", "80%"]
    assert run([*argv, "--values", "16"]) == 2
    assert "compressing trains, and needs data" in capsys.readouterr().err
    argv += [
        "--data",
        str(DATA["data"]),
        "--epochs",
        "1",
        "--set",
        "sharing.epochs=1",
        "--set",
        "measure.seconds=0.01",
    ]
    assert run([*argv, "--values", "16", "--set", "pruning.learning_rate=0.001", "-q"]) == 0
    assert (tmp_path / "x.onnx").exists()
