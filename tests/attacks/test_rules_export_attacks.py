"""Attacks by what is written in a rules file, or in a document that is read back: text stays text everywhere."""

from __future__ import annotations

import ast
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from modelkit.errors import ConfigError
from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import Compare, In, Operator
from modelkit.rules.export.dmn import from_dmn, to_dmn
from modelkit.rules.export.errors import ExportError
from modelkit.rules.export.json import from_json, to_json
from modelkit.rules.export.markdown import to_markdown
from modelkit.rules.export.pmml import to_pmml
from modelkit.rules.export.pmml_read import from_pmml
from modelkit.rules.export.python import to_python
from modelkit.rules.export.sql import to_sql
from modelkit.rules.model import Label, Rule, RuleSet

EVIL = (
    "'; DROP TABLE input; --",
    '"; DROP TABLE input; --',
    "*/ DROP TABLE input; /*",
    "\nDROP TABLE input;\n",
    '"""\nimport os; os.system("touch owned")\n"""',
    "'\nimport os; os.system('touch owned')\n'",
    "\\",
    "\\'",
    "{__import__('os').system('touch owned')}",
    "-*- coding: utf-7 -*-",
    "]]></text><x/>",
    "&owned;",
    '" onload="x',
    "<script>alert(1)</script>",
    "![x](http://evil.example/x.png)",
    "[x](javascript:alert(1))",
    "a | b\n\n# heading",
    "` `` ```",
    "\u202eevil\u2028line",
    "@team #1",
)
WRITERS = {"sql": to_sql, "python": to_python, "json": to_json, "dmn": to_dmn, "pmml": to_pmml, "md": to_markdown}


def evil(text: str) -> RuleSet:
    name = "".join(sign for sign in text if sign.isprintable()) or "x"
    columns = (
        Column(name, ColumnType.CATEGORY, values=(text, "b"), unit=text, description=text, missing=True),
        Column("z", ColumnType.NUMBER, unit=text),
    )
    rules = (
        Rule(text, Compare(name, Operator.EQ, text), Label(text), description=text),
        Rule("second", In(name, (text, "b"), negated=True), Label("b")),
    )
    return RuleSet(columns, rules, default=Label("c"), name=text, description=text)


@pytest.mark.parametrize("text", EVIL)
def test_sql_is_one_statement_that_only_reads(text: str) -> None:
    rules = evil(text)
    base = sqlite3.connect(":memory:")
    column = '"' + rules.columns[0].name.replace('"', '""') + '"'
    base.execute(f"CREATE TABLE input ({column} TEXT, z REAL)")
    base.executemany("INSERT INTO input VALUES (?, 0.0)", [(text,), ("b",), (None,), ("d",)])
    base.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_OK if action in (20, 21, 31, 33) else sqlite3.SQLITE_DENY
    )  # read, select, function, recursive
    got = base.execute(to_sql(rules)).fetchall()  # refuses a second statement
    assert [row[0] for row in got] == [text, "c", "c", "b"]
    outside = re.sub(r"--[^\n]*|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "", to_sql(rules))
    assert "DROP" not in outside and outside.count(";") == 1


@pytest.mark.parametrize("text", EVIL)
def test_python_imports_and_calls_nothing_of_the_text(text: str, tmp_path: Path) -> None:
    code = to_python(evil(text))
    tree = ast.parse(code)
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert names == {"csv", "datetime", "sys"}
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__", "getattr", "globals"}
    (tmp_path / "exported.py").write_text(code, encoding="utf-8")
    use = "import exported as e, sys; print(ascii(e.decide({k: sys.argv[1] if v == 'category' else 0 "
    use += "for k, v in e.COLUMNS.items()}).label))"
    done = subprocess.run(
        [sys.executable, "-c", use, text], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == ascii(text), done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"exported.py", "__pycache__"}


@pytest.mark.parametrize("text", EVIL)
def test_xml_and_json_hold_text_as_text(text: str) -> None:
    rules = evil(text)
    assert from_json(to_json(rules)) == rules
    assert from_dmn(to_dmn(rules)).rules.rules[0].then == Label(text)
    read, _ = from_pmml(to_pmml(rules))
    assert read.rules[0].then == Label(text) and read.rules[0].name == text
    for document in (to_dmn(rules), to_pmml(rules)):
        assert not re.search(r"<(x|script)\b|&owned;|<!", document)


@pytest.mark.parametrize("text", EVIL)
def test_markdown_shows_text_as_it_is(text: str) -> None:
    page = to_markdown(evil(text))
    assert [line for line in page.splitlines() if line.startswith("#")][1:] == ["## Columns", "## Rules", "## Table"]
    bare = re.sub(r"(`+).+?\1", "", page)
    assert not re.search(r"<\w|!?\[[^\]]*\]\(|(?<!\w)@team|javascript:alert\(1\)\)(?=\[)", bare)
    assert "\u202e" not in page and "\u2028" not in page


@pytest.mark.parametrize("form", WRITERS)
def test_half_a_character_is_refused(form: str) -> None:
    with pytest.raises(ExportError, match="half of a character"):
        WRITERS[form](evil("a\ud800"))


@pytest.mark.parametrize(("form", "sign"), [("sql", "\0"), ("pmml", "\0"), ("pmml", "\x1b"), ("dmn", "\uffff")])
def test_what_a_language_cannot_write_is_refused(form: str, sign: str) -> None:
    with pytest.raises(ExportError, match="holds the character"):
        WRITERS[form](evil(f"a{sign}"))


LAUGHS = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("head", [LAUGHS, OUTSIDE, "<!DOCTYPE x>", '<?xml-stylesheet href="x"?>'])
def test_document_types_are_refused(head: str) -> None:
    for read, text in ((from_dmn, to_dmn(evil("a"))), (from_pmml, to_pmml(evil("a")))):
        first, rest = text.split("\n", 1)
        with pytest.raises(ConfigError) as caught:
            read(f"{first}\n{head}\n{rest}")
        assert "refused" in caught.value.problems[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        "<definitions/>",
        "<a>" * 5000,
        b"\xff\xfe",
        '<definitions xmlns="https://www.omg.org/spec/DMN/20191111/MODEL/"/>',
        '<PMML xmlns="http://www.dmg.org/PMML-4_4"/>',
    ],
)
def test_broken_documents_are_one_clear_error(text: str | bytes) -> None:
    for read in (from_dmn, from_pmml):
        with pytest.raises(ConfigError, match="cannot be read"):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": "modelkit.rules/2"}',
        '{"schema": "modelkit.rules/1", "schema": "modelkit.rules/1"}',
        '{"a":' * 100_000,
        "[" * 100_000,
        b"\xff",
        to_json(evil("a")).replace('"policy": "first"', '"policy": "first", "code": "x"'),
        to_json(evil("a")).replace('"weight": 1.0', '"weight": 1e999'),
        to_json(evil("a")).replace('"weight": 1.0', '"weight": NaN'),
        to_json(evil("a")).replace('"weight": 1.0', '"weight": "1"'),
    ],
)
def test_broken_json_is_one_clear_error(text: str | bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(text)
    assert caught.value.problems and all(line.isprintable() for line in caught.value.problems)


@pytest.mark.parametrize("change", ["__import__('os')", "> 1 or true", 'file("/etc/passwd")', "-5..", '"a" + "b"'])
def test_feel_that_we_do_not_write_is_not_understood(change: str) -> None:
    text = to_dmn(evil("a")).replace('<text>"a"</text>', f"<text>{change.replace('<', '&lt;')}</text>", 1)
    with pytest.raises(ConfigError):
        from_dmn(text)
