"""Runs what was exported and compares it, row by row, with the evaluator: exact equality, no tolerance."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from rule_sets import python_rows

from modelkit.rules.evaluate import Evaluation, evaluate
from modelkit.rules.export.python import to_python
from modelkit.rules.export.sql import to_sql
from modelkit.rules.export.sql_literals import name
from modelkit.rules.model import Policy, RuleSet

Row = dict[str, np.ndarray]


def module_of(rules: RuleSet) -> dict[str, Any]:
    """The names of the module that a rule set becomes."""
    found: dict[str, Any] = {"__name__": "exported"}
    exec(compile(to_python(rules), "exported.py", "exec"), found)  # running it is the test
    return found


def _none(value: Any) -> Any:
    return None if value is None or value == "" or value != value else value


def expected(rules: RuleSet, found: Evaluation, row: int) -> tuple[int, Any, list[float]]:
    """What the evaluator says of a row: rule, result (None for none), scores."""
    value = found.result[row]
    if not rules.is_numeric and not rules.has_text_labels and value == -1:
        value = None
    return int(found.rule_id[row]), _none(value), [_none(score) for score in found.scores[row].tolist()]


def python_differences(rules: RuleSet, table: Row) -> Iterator[str]:
    """Rows on which the Python module differs."""
    decide, found = module_of(rules)["decide"], evaluate(rules, table)
    for index, row in enumerate(python_rows(table)):
        result = decide(row)
        scores = [result.score] if rules.is_numeric else [result.scores[label] for label in rules.classes]
        got = (result.rule_id, _none(result[2]), [_none(score) for score in scores])
        if got != expected(rules, found, index):
            yield f"{row}: {got}, expected {expected(rules, found, index)}"


def sql_differences(rules: RuleSet, table: Row) -> Iterator[str]:
    """Rows on which the query differs; missing text is NULL in one row and empty in the next."""
    found = evaluate(rules, table)
    rows = python_rows(table)
    with closing(sqlite3.connect(":memory:")) as base:
        kinds = ", ".join(f"{name(c.name)} {'TEXT' if c.type.is_text else 'REAL'}" for c in rules.columns)
        base.execute(f"CREATE TABLE input ({kinds})")
        marks = ", ".join("?" for _ in rules.columns)
        values = [
            [(row[c.name] or None) if c.type.is_text and i % 2 else row[c.name] for c in rules.columns]
            for i, row in enumerate(rows)
        ]
        base.executemany(f"INSERT INTO input VALUES ({marks})", values)
        cursor = base.execute(to_sql(rules))
        names = [entry[0].lower() for entry in cursor.description]
        got_rows = cursor.fetchall()
    assert len(set(names)) == len(names)
    assert len(got_rows) == len(rows)
    place = {each.rstrip("_"): i for i, each in enumerate(names[: -len(rules.columns)])}
    for index, got in enumerate(got_rows):
        rule_id, result, scores = expected(rules, found, index)
        given = [got[place["rule_id"]], got[place["prediction" if rules.is_numeric else "label"]]]
        wanted: list[Any] = [rule_id, result]
        if rules.is_numeric and "score" in place:
            given, wanted = [*given, got[place["score"]]], [*wanted, *scores]
        shown = [f"score of {label}".lower() for label in rules.classes]
        if not rules.is_numeric and any(each in place for each in shown):
            given, wanted = [*given, *(got[place[each]] for each in shown)], [*wanted, *scores]
        elif not rules.is_numeric:
            assert rules.policy not in (Policy.VOTE, Policy.COLLECT)
        if given != wanted:
            yield f"{rows[index]}: {given}, expected {wanted}"


def onnx_differences(rules: RuleSet, table: Row) -> Iterator[str]:
    """The first row on which the ONNX file differs."""
    from modelkit.rules.onnx_build import to_onnx
    from modelkit.rules.verify import first_difference, run_rules
    from modelkit.runtime import make_session

    found = run_rules(make_session(to_onnx(rules).SerializeToString()), rules, table)
    index = first_difference(evaluate(rules, table), found)
    if index is not None:
        yield f"row {index}"


DIFFERENCES = {"ONNX": onnx_differences, "Python": python_differences, "SQL": sql_differences}
