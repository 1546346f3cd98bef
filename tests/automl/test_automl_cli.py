"""`modelkit automl` and `modelkit predict` from end to end, and what they say where something is wrong."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from automl_inline import InlineRunner
from automl_tables import iris, mixed, write_csv

from modelkit.cli.app import run

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "automl").glob("*.yaml"))
FAST = ("--set", "families=[constant, linear, lightgbm, neighbors]")
QUICK = (*FAST, "--max-trials", "4", "--workers", "1", "--set", "search.folds=3")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def inline(monkeypatch):
    """Trials run in this process: the same work, without the seconds that new processes take to start."""
    monkeypatch.setattr("modelkit.automl.session.LocalRunner", InlineRunner)


def automl(*argv):
    return run(["automl", *map(str, argv)])


def test_a_table_becomes_a_model_that_predicts_it(folder, capsys, inline):
    data = mixed(folder / "m.csv")
    assert automl(data, "--target", "churn", *QUICK) == 0
    out = capsys.readouterr().out
    assert "tells the 2 classes of churn apart" in out
    assert "lightgbm" in out or "linear" in out
    report = json.loads((folder / "model.report.json").read_text())
    assert report["status"] == "done"
    assert report["verified"]["largest_difference"] < 1e-6
    assert {c["target"]: c["action"] for c in report["columns"]}["key"] == "left out"
    assert 0.5 < report["scores"]["accuracy"] <= 1
    assert report["rows"]["search"] + report["rows"]["held out"] == 240
    assert "## Leaderboard" in (folder / "model.report.md").read_text()
    session = ort.InferenceSession("model.onnx")
    kinds = {each.name: each.type for each in session.get_inputs()}
    assert kinds["color"] == "tensor(string)"
    assert kinds["day"] == "tensor(double)"
    assert [each.name for each in session.get_outputs()] == ["label", "probabilities"]
    assert run(["predict", "model.onnx", str(data), "--keep", "key", "-o", "p.csv"]) == 0
    with (folder / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "label", "probability_no", "probability_yes"]
    with data.open() as file:
        truth = [row["churn"] for row in csv.DictReader(file)]
    right = np.mean([row["label"] == real for row, real in zip(rows, truth, strict=True) if real])
    assert right > 0.7


def test_numbers_are_predicted(folder, capsys, inline):
    data = mixed(folder / "m.csv", regression=True, target="score")
    assert automl(data, "-t", "score", *QUICK, "-o", "deep/s.onnx", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["task"] == "regression"
    assert report["scores"]["r2"] > 0.3
    assert run(["predict", "deep/s.onnx", str(data)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "prediction"


def test_the_same_trials_give_the_same_bytes(folder):
    data = mixed(folder / "m.csv", 120)
    more = (*FAST, "--max-trials", "10", "--set", "search.folds=2", "--workers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelkit.automl.session.LocalRunner", InlineRunner)
        assert automl(data, "-t", "churn", *more, "1", "-o", "a.onnx", "-q") == 0
    assert automl(data, "-t", "churn", *more, "2", "-o", "b.onnx", "-q") == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_time_is_kept_and_an_early_artifact_is_there(folder, capsys):
    data = iris(folder / "iris.csv")
    assert automl(data, "-t", "species", "--time", "12s", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["seconds"] < 12 * 1.1
    assert report["scores"]["accuracy"] > 0.8


def test_a_baseline_is_judged_on_the_same_rows(folder, capsys, inline):
    data = iris(folder / "iris.csv")
    assert automl(data, "-t", "species", *QUICK, "-q", "-o", "old.onnx", "--set", "families=[constant]") == 0
    assert automl(data, "-t", "species", *QUICK, "--baseline", "old.onnx") == 0
    out = capsys.readouterr().out
    assert "(old.onnx: 33.33 %)" in out


def test_a_budget_is_kept(folder, capsys, inline):
    data = iris(folder / "iris.csv")
    argv = (data, "-t", "species", "--max-trials", "6", "--workers", "1", "--set", "search.folds=2", *FAST)
    assert automl(*argv, "--max-size", "4kB") == 0
    assert (folder / "model.onnx").stat().st_size <= 4000
    assert automl(*argv, "--max-size", "1kB", "-o", "none.onnx") == 1
    assert "no model keeps the budget" in capsys.readouterr().err
    assert not (folder / "none.onnx").exists()


@pytest.mark.parametrize("template", CONFIGS, ids=lambda path: path.stem)
def test_templates_run(folder, template, inline):
    data = iris(folder / "iris.csv")
    more = ("--max-trials", "3", "--workers", "1", "--set", "search.folds=2", "-q")
    assert automl(data, "-t", "species", "--config", template, *more) == 0
    report = json.loads((folder / "model.report.json").read_text())
    assert any(origin.startswith(template.name) for origin in report["origins"].values())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--target", "specie"], ["no column 'specie'", "did you mean 'species'"]),
        ([], ["no target is named", "--target"]),
        (["-t", "species", "--metric", "rmse"], ["metric rmse does not fit", "log_loss"]),
        (["-t", "species", "--task", "regression"], ["holds text", "--task"]),
        (["-t", "species", "--metric", "speed"], ["metric", "log_loss"]),
        (["-t", "species", "--set", "space.linear={depth: {low: 1, high: 2}}"], ["no hyper-parameter 'depth'", ""]),
        (
            ["-t", "species", "--set", "search.folds=50", "--max-trials", "1", "--set", "held_out=0.8"],
            ["fewer than 50 folds", "folds=2"],
        ),
        (["-t", "species", "-o", "iris.csv"], ["is the input", "-o"]),
    ],
)
def test_options_that_cannot_be(folder, capsys, argv, said):
    iris(folder / "iris.csv")
    assert automl("iris.csv", *argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    for words in said:
        assert words in err
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["iris.csv"]


def test_an_output_that_exists_is_kept(folder, capsys):
    iris(folder / "iris.csv")
    (folder / "model.onnx").write_text("mine")
    assert automl("iris.csv", "-t", "species", *QUICK) == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder / "model.onnx").read_text() == "mine"


def test_too_little_time_is_said(folder, capsys):
    iris(folder / "iris.csv")
    assert automl("iris.csv", "-t", "species", "--time", "0.3s") == 1
    err = capsys.readouterr().err
    assert "no model was finished within 0.3 s" in err
    assert "hint: " in err
    assert sorted(path.name for path in folder.iterdir()) == ["iris.csv"]


def test_predicting_what_does_not_fit(folder, capsys, inline):
    data = iris(folder / "iris.csv")
    assert automl(data, "-t", "species", *QUICK, "-q") == 0
    write_csv(folder / "less.csv", ["sepal_length", "sepal_width", "petal_len", "petal_width"], [[1, 2, 3, 4]])
    assert run(["predict", "model.onnx", "less.csv"]) == 2
    assert "the column 'petal_length' is missing (there is 'petal_len')" in capsys.readouterr().err
    write_csv(folder / "odd.csv", ["sepal_length", "sepal_width", "petal_length", "petal_width"], [[1, 2, "long", 4]])
    assert run(["predict", "model.onnx", "odd.csv"]) == 2
    assert "column 'petal_length' holds 'long' in row 1; numbers are expected" in capsys.readouterr().err
    write_csv(folder / "few.csv", ["sepal_length", "sepal_width", "petal_length", "petal_width"], [[1, "", 3, 4]])
    assert run(["predict", "model.onnx", "few.csv"]) == 0


def test_an_interrupted_run_leaves_the_last_artifact(folder):
    data = iris(folder / "iris.csv")
    code = "import sys; from modelkit.cli.app import main; main(sys.argv[1:])"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "automl", str(data), "-t", "species", "--time", "60s"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        for _ in range(400):
            if (folder / "model.onnx").exists():
                break
            child_gone = child.poll() is not None
            assert not child_gone
            __import__("time").sleep(0.1)
        child.send_signal(2)
        child.wait(20)
    finally:
        child.kill()
    assert child.returncode == 130
    assert json.loads((folder / "model.report.json").read_text())["status"] == "searching"
    assert ort.InferenceSession(str(folder / "model.onnx")).get_outputs()[0].name == "label"
    left = ["iris.csv", "model.automl", "model.onnx", "model.report.json", "model.report.md"]
    assert sorted(p.name for p in folder.iterdir()) == left
    tried = len((folder / "model.automl" / "trials.jsonl").read_text().splitlines()) - 2
    assert automl(data, "-t", "species", "--time", "6s", "--resume", "-q") == 0
    report = json.loads((folder / "model.report.json").read_text())
    assert report["status"] == "done"
    assert len(report["leaderboard"]) >= tried
    left.remove("model.automl")
    assert sorted(p.name for p in folder.iterdir()) == left


def test_resuming_gives_the_bytes_of_one_run(folder, inline, capsys, monkeypatch):
    data = iris(folder / "iris.csv")
    argv = (data, "-t", "species", "--set", "search.folds=2", "-q", "--max-trials", "10", *FAST)
    assert automl(*argv, "-o", "whole.onnx") == 0
    from modelkit.automl.past import Past

    keep, count = Past.keep, [0]

    def interrupted(past, trial):
        keep(past, trial)
        count[0] += 1
        if count[0] == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Past, "keep", interrupted)
        assert automl(*argv, "-o", "parts.onnx") == 130
    assert automl(*argv, "-o", "parts.onnx", "--resume", "--seed", "1") == 2
    assert "seed changed since" in capsys.readouterr().err
    assert automl(*argv, "-o", "parts.onnx", "--resume") == 0
    assert (folder / "parts.onnx").read_bytes() == (folder / "whole.onnx").read_bytes()
    assert automl(*argv, "-o", "parts.onnx", "--resume") == 2
    assert "holds no run to go on with" in capsys.readouterr().err


def test_groups_times_weights_and_a_test_file(folder, inline, capsys):
    rng = np.random.default_rng(0)
    rows = []
    for row in range(200):
        x, kind = float(rng.normal()), "uvw"[row % 3]
        day = f"2024-{1 + row % 12:02d}-{1 + row % 28:02d}"
        rows.append([x, kind, f"g{row % 20}", day, 0.5 + row % 3, "rare" if x + (kind == "u") > 1.6 else "usual"])
    header = ["x", "kind", "house", "day", "w", "y"]
    write_csv(folder / "train.csv", header, rows[:150])
    write_csv(folder / "test.csv", header, rows[150:])
    more = (*QUICK, "--json", "-f")
    assert automl("train.csv", "-t", "y", "--group", "house", "--weight", "w", "--metric", "f1", *more) == 0
    report = json.loads(capsys.readouterr().out)
    actions = {c["target"]: c["reason"] for c in report["columns"]}
    assert (actions["house"], actions["w"]) == ("the groups", "the weights")
    assert report["metric"] == "f1"
    assert automl("train.csv", "-t", "y", "--time-column", "day", "--test", "test.csv", *more) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == {"search": 150, "held out": 50, "all": 150, "read": 150}
    write_csv(folder / "test.csv", ["x", "y"], [[1, "usual"]])
    assert automl("train.csv", "-t", "y", "--test", "test.csv", *more) == 2
    assert "test.csv lacks the columns 'kind'" in capsys.readouterr().err


def test_parquet_and_npz(folder, inline, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    table = {f"x_{place}": x[:, place] for place in range(x.shape[1])}
    pq.write_table(pa.table({**table, "y": y}), folder / "wine.parquet")
    np.savez(folder / "wine.npz", x=x, y=y)
    for name in ("wine.parquet", "wine.npz"):
        assert automl(name, "-t", "y", *QUICK, "--json", "-f", "--max-trials", "3") == 0
        report = json.loads(capsys.readouterr().out)
        assert report["classes"] == [0, 1, 2]
        assert report["scores"]["accuracy"] > 0.8
    session = ort.InferenceSession("model.onnx")
    label = session.run(["label"], {f"x_{place}": x[:2, place] for place in range(x.shape[1])})[0]
    assert label.dtype == np.int64
