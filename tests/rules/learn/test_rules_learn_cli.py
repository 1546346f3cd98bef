"""`modelkit rules learn` from a file to files, and what it says of bad input."""

import json

import numpy as np
import pytest
from learn_data import mixed, write_csv

from modelkit.cli.app import run
from modelkit.rules.evaluate import evaluate
from modelkit.rules.load import load
from modelkit.rules.table import read_table
from modelkit.runtime import make_session

FAST = ["--method", "tree", "--method", "list", "--method", "additive", "--set", "folds=3"]


@pytest.fixture
def data(tmp_path):
    return write_csv(tmp_path / "rows.csv", mixed())


def test_learn_writes_rules_a_model_and_reports(data, tmp_path, capsys):
    test = write_csv(tmp_path / "test.csv", mixed(seed=3))
    assert (
        run(["rules", "learn", str(data), "--target", "y", "--max-rules", "5", "--test", str(test), "--json", *FAST])
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["rules"] <= 5
    assert report["quality"]["test"] > 0.85
    rules = load(tmp_path / "rows.rules.yaml")
    table, labels = read_table(rules, test, label="y")
    result = evaluate(rules, table).result
    assert (result == labels).mean() == pytest.approx(report["quality"]["test"])
    session = make_session(tmp_path / "rows.rules.onnx")
    assert {each.name for each in session.get_inputs()} == {column.name for column in rules.columns}
    assert (tmp_path / "rows.rules.report.md").read_text()


def test_the_same_data_give_the_same_bytes(data, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        target = str(tmp_path / name / "r.yaml")
        assert run(["rules", "learn", str(data), "-y", "y", "-o", target, "-q", *FAST]) == 0
    assert (tmp_path / "a/r.yaml").read_bytes() == (tmp_path / "b/r.yaml").read_bytes()
    assert (tmp_path / "a/r.onnx").read_bytes() == (tmp_path / "b/r.onnx").read_bytes()


def test_numbers_dates_and_truth_are_known_by_their_values(tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = ["day,price,sold,name,y"]
    for i in range(60):
        day = f"2024-{1 + i % 12:02d}-0{1 + i % 9}"
        price = "NA" if i % 10 == 0 else f"{rng.random():.3f}"
        lines.append(f"{day},{price},{'true' if i % 3 else 'false'},name{i},{10.5 if day > '2024-06' else 3.25}")
    path = tmp_path / "d.csv"
    path.write_text("\n".join(lines))
    assert run(["rules", "learn", str(path), "-y", "y", "--method", "tree", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metric"] == "r2"
    assert any("'name' is left out" in note for note in report["notes"])
    rules = load(tmp_path / "d.rules.yaml")
    assert rules.column["day"].type == "date"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--target", "z"], 5, "no column 'z'"),
        (["--target", "y", "--max-rules", "1"], 2, "--max-rules: 1"),
        (["--target", "y", "--method", "trees"], 2, "methods"),
        (["--target", "group", "--outcome", "number"], 5, "other than numbers"),
        (["--target", "y", "--without", "sise"], 5, "size"),
        (["--target", "y", "-o", "rules.onnx"], 2, ".yaml"),
    ],
)
def test_bad_options(data, args, code, words, capsys):
    assert run(["rules", "learn", str(data), *args]) in (code, 2)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,y\n", "no rows"),
        ("a,y\n" + "1,x\n2,x\n" * 9, "nothing to learn"),
        ("a,y\n1,x\n2,z\n", "at least 10"),
        ("a,y\n" + "1,x\n1,z\n" * 9, "no column"),
        ("a,y\n" + "".join(f"{i},name{i}\n" for i in range(40)), "different labels"),
    ],
)
def test_data_that_cannot_be_learned_from(tmp_path, text, words, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert run(["rules", "learn", str(path), "-y", "y"]) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "bad.rules.yaml").exists()
