"""modelkit prune --channels from file to file: what it reaches, what it searches, what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from channel_nets import Net, residual
from sparse_nets import SAMPLES, read

from modelkit import api
from modelkit.channels.cutting import Way, prune_channels
from modelkit.channels.survey import prunable_groups
from modelkit.errors import BudgetError, ModelError, UsageError
from modelkit.graph.save import save
from modelkit.prune.config import PruneConfig

QUICK = {"measure.seconds": 0.05}


def prune(name: str, folder: Path, *, data: bool = True, test: bool = True, **options):
    return api.prune(
        SAMPLES / f"{name}.onnx",
        output=folder / "small.onnx",
        data=SAMPLES / f"{name}.calib.npz" if data else None,
        test=SAMPLES / f"{name}.eval.npz" if test else None,
        config={**QUICK, **options},
    )


def test_half_the_macs_of_the_residual_net_cost_less_than_five_points(tmp_path: Path) -> None:
    options = {"structure.target": "macs", "structure.ranking": "search", "structure.importance": "reconstruction"}
    report = prune("fashion_cnn", tmp_path, channels=0.5, **options)
    before, after = report.before, report.after
    assert after.size["macs"] <= 0.5 * before.size["macs"]
    assert after.quality["accuracy"] >= before.quality["accuracy"] - 0.05
    assert report.method == "channels by reconstruction, search, repaired"
    actions = {decision.target: decision for decision in report.decisions}
    assert actions["node_linear"].action == "kept" and "output" in actions["node_linear"].reason
    assert actions["node_Conv_158"].numbers["channels"] < 48
    model = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == ["logits"]
    assert "multiply-accumulates" in (tmp_path / "small.report.md").read_text()


@pytest.mark.parametrize(
    ("name", "most"), [("digits_mlp", 0.02), ("language_gru", 0.06), ("language_transformer", 0.04)]
)
def test_a_third_of_the_parameters_of_other_nets(name: str, most: float, tmp_path: Path) -> None:
    options = {"structure.ranking": "equal", "structure.importance": "reconstruction", "calibration.samples": 64}
    report = prune(name, tmp_path, channels=0.33, **{"structure.target": "parameters", **options})
    assert report.after.size["parameters"] <= 0.68 * report.before.size["parameters"]
    assert report.after.quality["accuracy"] >= report.before.quality["accuracy"] - most


def test_without_data_it_goes_by_the_weights_and_says_so(tmp_path: Path) -> None:
    report = prune("digits_mlp", tmp_path, data=False, channels=0.25)
    names = [entry["name"] for entry in report.candidates]
    assert names == ["channels by l2, search", "channels by geometric_median, search", "channels by l2, equal"]
    kept = {d.target: d.numbers for d in report.decisions if d.action == "cut"}
    assert sum(n["channels"] for n in kept.values()) <= 0.75 * sum(n["channels_before"] for n in kept.values())
    assert not any(decision.action == "repaired" for decision in report.decisions)


def test_threshold_of_importance(tmp_path: Path) -> None:
    options = {"structure.threshold": 0.7, "structure.importance": "activation"}
    report = prune("digits_mlp", tmp_path, **options)
    assert 10_000 < report.after.size["parameters"] < report.before.size["parameters"]


def test_auto_finds_the_most_that_fits_and_exits_where_nothing_does(tmp_path: Path) -> None:
    options = {"structure.importance": "activation", "structure.ranking": "equal", "structure.target": "macs"}
    report = prune("digits_mlp", tmp_path, channels="auto", **{"budget.max_drop": 0.01, **options})
    tried = {float(e["name"].rsplit(", ", 1)[1].rstrip("%")): e["status"] for e in report.candidates}
    assert 3 <= len(tried) <= 7 and 50.0 in tried
    chosen = float(report.method.rsplit(", ", 1)[1].rstrip("%"))
    assert tried[chosen] == "chosen"
    too_much = [ratio for ratio, status in tried.items() if status == "rejected"]
    assert too_much and chosen < min(too_much)
    second = tmp_path / "second"
    second.mkdir()
    with pytest.raises(BudgetError) as caught:
        prune("digits_mlp", second, channels="auto", **{"budget.max_drop": 0, "budget.min_ratio": 50, **options})
    assert caught.value.exit_code == 1 and caught.value.report.status == "budget not met"
    third = tmp_path / "third"
    third.mkdir()
    with pytest.raises(UsageError, match="none is set"):
        prune("digits_mlp", third, channels="auto")


def test_latency_as_the_target_is_measured() -> None:
    structure = {"target": "latency", "repair": "none"}
    config = PruneConfig.model_validate({"channels": 0.3, "structure": structure})
    decisions = prune_channels(read("fashion_cnn"), config, 0.3, None, way=Way("l2", "equal", "none"))
    [timed] = [decision for decision in decisions if decision.action == "timed"]
    assert timed.numbers["time_removed"] >= 0.3
    assert decisions[0].numbers["macs"] < 0.95 * decisions[0].numbers["macs_before"]


def test_what_cannot_be_done_is_said_before_anything_runs(tmp_path: Path) -> None:
    for options, message in (
        ({"channels": 0.99}, "at most"),
        ({"channels": 0.5, "include": ["no/such*"]}, "matches no weight or layer"),
        ({"channels": 0.5, "structure.importance": "gamma"}, "gamma needs BatchNormalization"),
        ({"channels": 0.5, "exclude": ["*"]}, "excluded by"),
    ):
        with pytest.raises((UsageError, ModelError), match=message):
            prune("digits_mlp", tmp_path, **options)
    with pytest.raises(UsageError, match="no data"):
        prune("digits_mlp", tmp_path, data=False, channels=0.5, **{"structure.importance": "activation"})
    assert not list(tmp_path.iterdir())


def test_a_model_without_groups_says_why(tmp_path: Path) -> None:
    net = Net({"x": ["n", 3, 6, 6]}, {"y": ["n", 4, 6, 6]})
    net.conv("x", "only", net.normal(4, 3, 3, 3), out="y")
    save(net.build(), tmp_path / "one.onnx")
    with pytest.raises(ModelError, match=r"no channels can be taken out: n_y: .*output"):
        api.prune(tmp_path / "one.onnx", config={**QUICK, "channels": 0.5})


def test_patterns_choose_what_a_layer_makes_and_spare_all_that_it_touches() -> None:
    def open_groups(**patterns) -> set[str]:
        config = PruneConfig.model_validate({"channels": 0.25, **patterns})
        return {group.name for group in prunable_groups(residual(16, 32).build(), config)[0]}

    assert open_groups() == {"n_stem", "n_first"}
    for name in ("n_first", "first.w", "first.b"):
        assert open_groups(include=[name]) == {"n_first"}
    for name in ("n_stem", "second.w", "n_second"):
        assert open_groups(include=[name]) == {"n_stem"}
    assert open_groups(exclude=["last.w"]) == {"n_first"}
    with pytest.raises(ModelError, match=r"excluded by 'second\.w'"):
        open_groups(exclude=["second.w"])


def test_channels_never_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys, json\nfrom modelkit.cli.app import run\ncode = run(sys.argv[1:])\n"
        "print('\\n' + json.dumps([code, 'torch' in sys.modules]))\n"
    )
    argv = ["prune", str(SAMPLES / "digits_mlp.onnx"), "--channels", "0.3", "--target", "macs", "--quiet"]
    argv += ["--data", str(SAMPLES / "digits_mlp.calib.npz"), "-o", str(tmp_path / "a.onnx")]
    found = subprocess.run(
        [sys.executable, "-c", code, *argv, "--set", "measure.seconds=0.05"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SAMPLES.parent)},
        check=False,
    )
    assert json.loads(found.stdout.splitlines()[-1]) == [0, False], found.stderr
    assert np.prod(onnx.load(tmp_path / "a.onnx").graph.initializer[0].dims) > 0
