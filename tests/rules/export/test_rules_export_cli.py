"""`modelkit rules export` as it is typed, and the Python module as a program."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from modelkit.cli.app import run
from modelkit.rules.export.json import from_json, schema
from modelkit.rules.export.targets import WRITERS, Target
from modelkit.rules.load import load

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "rules").glob("*.yaml"))
Capsys = pytest.CaptureFixture[str]
RULES = """\
columns:
  length: {type: number, unit: cm}
  colour: {type: category, values: [red, blue], missing: true}
rules:
- {name: short, when: length < 2.5, then: small}
- {name: red, when: colour = red, then: big}
default: other
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_templates_are_written_or_refused_with_a_reason(path: Path, target: Target, capsys: Capsys) -> None:
    code = run(["rules", "export", str(path), "--to", str(target)])
    out, err = capsys.readouterr()
    if code == 0:
        assert out == WRITERS[target](load(path))
    else:
        assert (code, out) == (2, "") and target in (Target.DMN, Target.PMML)
        assert err.startswith(f"error: this rule set cannot be written as {target}: ") and "hint: " in err


def test_json_fits_its_schema_and_is_read_back(capsys: Capsys) -> None:
    assert run(["rules", "export", "rules.yaml", "--to", "json"]) == 0
    text = capsys.readouterr().out
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads(text), schema())
    assert from_json(text) == load(Path("rules.yaml"))


def test_a_file_is_written_once(capsys: Capsys, folder: Path) -> None:
    argv = ["rules", "export", "rules.yaml", "--to", "sql", "-o", "out/rules.sql"]
    assert run(argv) == 0
    assert capsys.readouterr() == ("", "wrote out/rules.sql\n")
    before = (folder / "out" / "rules.sql").read_text()
    assert run(argv) == 2
    assert "exists already" in capsys.readouterr().err
    assert run([*argv, "--force", "--quiet"]) == 0
    assert (folder / "out" / "rules.sql").read_text() == before


def test_the_rules_file_is_never_overwritten(capsys: Capsys, folder: Path) -> None:
    assert run(["rules", "export", "rules.yaml", "--to", "json", "-o", "rules.yaml", "--force"]) == 2
    assert "is the input" in capsys.readouterr().err
    assert (folder / "rules.yaml").read_text() == RULES


def test_an_unknown_language_names_those_that_there_are(capsys: Capsys) -> None:
    assert run(["rules", "export", "rules.yaml", "--to", "cobol"]) == 2
    assert "markdown" in capsys.readouterr().err


def test_the_module_reads_csv_as_a_program(folder: Path) -> None:
    assert run(["rules", "export", "rules.yaml", "--to", "python", "-o", "decide.py", "--quiet"]) == 0
    (folder / "rows.csv").write_text("length,colour\n1,red\n3,red\n3,\n")
    done = subprocess.run(
        [sys.executable, "-I", "decide.py", "rows.csv"], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.stdout == "rule_id,rule,label\n0,short,small\n1,red,big\n-1,,other\n", done.stderr


def test_the_query_runs_on_a_table_of_more_columns(folder: Path) -> None:
    assert run(["rules", "export", "rules.yaml", "--to", "sql", "-o", "rules.sql", "--quiet"]) == 0
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE input (id INTEGER, rule_id INTEGER, length REAL, colour TEXT, label TEXT)")
    base.executemany("INSERT INTO input VALUES (?, ?, ?, ?, ?)", [(7, 1, 1, "red", "x"), (8, -1, 3, "red", "y")])
    query = (folder / "rules.sql").read_text()
    assert [row[:2] for row in base.execute(query)] == [("small", 0), ("big", 1)]
    names = [entry[0] for entry in base.execute(query).description]
    assert names == ["label", "rule_id", "id", "rule_id:1", "length", "colour", "label"]


@pytest.mark.parametrize("policy", ["vote", "collect"])
def test_columns_of_the_table_are_not_taken_for_results(policy: str, folder: Path) -> None:
    (folder / "rules.yaml").write_text(RULES.replace("default: other", f"policy: {policy}"))
    assert run(["rules", "export", "rules.yaml", "--to", "sql", "-o", "rules.sql", "--quiet"]) == 0
    base = sqlite3.connect(":memory:")
    base.execute('CREATE TABLE input (length REAL, colour TEXT, label TEXT, rule_id INT, "score of big" REAL)')
    base.execute("INSERT INTO input VALUES (1.0, 'blue', 'big', 1, 9.0)")
    base.row_factory = sqlite3.Row
    row = base.execute((folder / "rules.sql").read_text()).fetchone()
    assert (row["label"], row["rule_id"], row["score of big"], row["score of small"]) == ("small", 0, 0.0, 1.0)
