"""`modelkit rules` as it is typed: results, exit codes, and files that are there only when they are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import jsonschema
import numpy as np
import onnx
import pytest
import yaml

from modelkit.cli.app import run
from modelkit.rules.load import load
from modelkit.rules.onnx_build import METADATA_KEY, rules_of
from modelkit.runtime import make_session

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "rules").glob("*.yaml"))
Capsys = pytest.CaptureFixture[str]

TREE = """\
name: tree
columns:
  length: {type: number, range: [0, 10]}
  colour: {type: category, values: [red, blue], missing: true}
policy: unique
rules:
- {name: short, when: length < 2.5, then: small}
- {name: red, when: length >= 2.5 and colour = red, then: big}
- {name: other, when: length >= 2.5 and (colour = blue or colour is missing), then: small}
constraints:
- forbid: big
  when: length < 1
"""
ROWS = "length,colour,label\n1,red,small\n3,red,big\n3,,small\n4,blue,big\n"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tree.yaml").write_text(TREE)
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path


def cli(capsys: Capsys, *argv: object) -> Ran:
    capsys.readouterr()
    code = run(["rules", *(str(part) for part in argv)])
    return Ran(code, *capsys.readouterr())


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.name not in ("tree.yaml", "rows.csv"))


def test_check_proves(capsys: Capsys) -> None:
    ran = cli(capsys, "check", "tree.yaml")
    assert ran.code == 0 and max(map(len, ran.out.splitlines())) <= 80
    assert "rules cover all input       proved" in ran.out and "no two rules fire together  proved" in ran.out
    report = json.loads(cli(capsys, "check", "tree.yaml", "--json").out)
    assert report["complete"]["state"] == "proved" and report["claims"][0]["state"] == "proved"


def test_check_finds_and_shows_rows(capsys: Capsys) -> None:
    text = TREE.replace("length >= 2.5 and colour = red", "length > 2 and colour = red").replace(
        " or colour is missing", ""
    )
    Path("bad.yaml").write_text(text)
    ran = cli(capsys, "check", "bad.yaml")
    assert ran.code == 1 and ran.err == ""
    report = json.loads(cli(capsys, "check", "bad.yaml", "--json").out)
    found = {finding["kind"]: finding["rows"][0] for finding in report["findings"]}
    assert set(found) == {"conflict", "gap"}
    assert 2 < found["conflict"]["length"] < 2.5 and found["conflict"]["colour"] == "red"
    assert found["gap"]["length"] >= 2.5 and found["gap"]["colour"] is None


def test_dead_rules_are_errors_or_warnings(capsys: Capsys) -> None:
    Path("dead.yaml").write_text(TREE + "- forbid: big\n  when: colour is missing\n")
    Path("dead.yaml").write_text(
        TREE.replace("constraints:", "- {name: dead, when: length > 11, then: big}\nconstraints:")
    )
    assert cli(capsys, "check", "dead.yaml").code == 1
    assert cli(capsys, "check", "dead.yaml", "--dead", "warning").code == 0
    assert cli(capsys, "check", "dead.yaml", "--dead", "warning", "--strict").code == 1


def test_build_writes_a_model_that_explains_itself(capsys: Capsys) -> None:
    ran = cli(capsys, "build", "tree.yaml", "--data", "rows.csv", "--rows", 3000)
    assert ran.code == 0, ran.err
    assert names() == ["tree.onnx", "tree.report.json", "tree.report.md"]
    assert "no disagreement" in ran.out and "accuracy 75.00 %" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    report = json.loads(Path("tree.report.json").read_text())
    assert report["schema"] == "modelkit.rules.report/1" and report["fit"]["rules"][1]["precision"] == 1.0
    assert report["fit"]["rules"][1]["lift"] == 2.0 and report["fit"]["rules"][1]["coverage"] == 0.25
    session = make_session(Path("tree.onnx"))
    feeds = {"length": np.array([1.0, 3.0, np.nan]), "colour": np.array(["red", "red", "green"], object)}
    label, scores, rule_id = session.run(["label", "scores", "rule_id"], feeds)
    assert label.tolist() == ["small", "big", ""] and rule_id.tolist() == [0, 1, -1]
    assert scores.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert rules_of(Path("tree.onnx")) == load(Path("tree.yaml"))
    assert cli(capsys, "check", "tree.onnx").code == 0


def test_build_refuses_what_the_check_finds(capsys: Capsys) -> None:
    Path("bad.yaml").write_text(TREE.replace(" or colour is missing", ""))
    ran = cli(capsys, "build", "bad.yaml")
    assert ran.code == 1 and "there is no default" in ran.err and "colour missing" in ran.out
    assert names() == ["bad.yaml"]
    assert cli(capsys, "build", "bad.yaml", "--allow-findings", "--rows", 100).code == 0


def test_build_overwrites_only_with_force(capsys: Capsys) -> None:
    Path("tree.onnx").write_text("mine")
    ran = cli(capsys, "build", "tree.yaml", "--rows", 100)
    assert ran.code == 2 and "exists already" in ran.err and Path("tree.onnx").read_text() == "mine"
    assert cli(capsys, "build", "tree.yaml", "--rows", 100, "--force").code == 0


def test_a_wrong_file_is_never_published(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that goes wrong in one threshold is found out by verification."""
    from modelkit.rules import build, onnx_build

    def wrong(rules: object) -> onnx.ModelProto:
        text = TREE.replace("length < 2.5", "length <= 2.5")
        Path("wrong.yaml").write_text(text)
        return onnx_build.to_onnx(load(Path("wrong.yaml")))

    monkeypatch.setattr(build, "to_onnx", wrong)
    ran = cli(capsys, "build", "tree.yaml", "--rows", 100)
    assert ran.code == 5 and "length = 2.5" in ran.err
    assert names() == ["wrong.yaml"]


def test_explain(capsys: Capsys) -> None:
    assert cli(capsys, "build", "tree.yaml", "--rows", 100).code == 0
    ran = cli(capsys, "explain", "tree.onnx", "rows.csv", "--row", 1, "--rows", 1)
    assert ran.code == 0 and "✓ colour = red  (colour is red)" in ran.out and "row 1" in ran.out
    found = json.loads(cli(capsys, "explain", "tree.onnx", "rows.csv", "--json").out)["rows"]
    assert [row["rule"] for row in found] == ["short", "red", "other", "other"]
    assert found[2]["literals"] == [
        ["length >= 2.5  (length is 3)", True],
        ["colour = blue  (colour missing)", False],
        ["colour is missing  (colour missing)", True],
    ]
    assert [
        row["result"] for row in json.loads(cli(capsys, "explain", "tree.yaml", "rows.csv", "--json").out)["rows"]
    ] == [row["result"] for row in found]


def test_explain_tells_what_a_score_is_made_of(capsys: Capsys) -> None:
    assert run(["init", "rules", "-t", "score"]) == 0
    Path("row.csv").write_text("age,income,late_payments\n55,30000,0\n20,1000,\n")
    first, second = json.loads(cli(capsys, "explain", "rules.yaml", "row.csv", "--json").out)["rows"]
    assert first["adds"] == {
        "default": 300,
        "over 30": 40,
        "over 50": 25,
        "always paid in time": 120,
        "by income": 25,
    }
    assert first["result"] == 510 and first["rule"] == "always paid in time"
    assert second["adds"] == {"default": 300} and second["result"] == 300
    assert "default +300, over 30 +40" in cli(capsys, "explain", "rules.yaml", "row.csv").out


def test_explain_refuses_other_models_and_changed_ones(capsys: Capsys) -> None:
    cli(capsys, "build", "tree.yaml", "--rows", 100)
    model = onnx.load("tree.onnx")
    text = {entry.key: entry.value for entry in model.metadata_props}
    text[METADATA_KEY] = text[METADATA_KEY].replace("length < 2.5", "length < 1.0")
    onnx.helper.set_model_props(model, text)
    onnx.save(model, "changed.onnx")
    ran = cli(capsys, "explain", "changed.onnx", "rows.csv")
    assert ran.code == 2 and "another result for row 0" in ran.err
    del model.metadata_props[:]
    onnx.save(model, "plain.onnx")
    ran = cli(capsys, "explain", "plain.onnx", "rows.csv")
    assert ran.code == 2 and "holds no rule set" in ran.err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["check", "none.yaml"], 2, "'none.yaml' does not exist"),
        (["check", "rows.csv"], 2, "no mapping"),
        (["check", "tree.yaml", "--seconds", "soon"], 2, "--seconds"),
        (["build", "tree.yaml", "-o", "tree.txt"], 2, "must end in .onnx"),
        (["build", "tree.yaml", "--data", "tree.yaml"], 2, "cannot be read"),
        (["explain", "rows.csv", "rows.csv"], 2, "no mapping"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_refused(capsys: Capsys, argv: list[str], code: int, said: str) -> None:
    ran = cli(capsys, *argv)
    assert ran.code == code and said in ran.err and ran.err.startswith("error: "), ran
    assert "Traceback" not in ran.err and names() == []


def test_data_that_does_not_fit(capsys: Capsys) -> None:
    Path("bad.csv").write_text("length,colour\n1,green\n11,red\nx,blue\n")
    ran = cli(capsys, "build", "tree.yaml", "--data", "bad.csv")
    assert ran.code == 2 and "'x', which is no number" in ran.err and "'green'" in ran.err
    assert names() == ["bad.csv"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_template_is_checked_and_built(capsys: Capsys, path: Path) -> None:
    assert run(["init", "rules", "-t", path.stem]) == 0
    lines = path.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=rules.schema.json" and max(map(len, lines)) <= 100
    schema = json.loads(Path("rules.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(yaml.load(path.read_text(), yaml.BaseLoader) and _plain(path))
    pytest.importorskip("z3")
    assert cli(capsys, "check", "rules.yaml", "--strict").code == 0
    assert cli(capsys, "build", "rules.yaml", "--rows", 1000).code == 0


def _plain(path: Path) -> object:
    from modelkit.config.nodes import plain
    from modelkit.config.yaml_strict import parse

    return plain(parse(path.read_text(), str)[0])
