"""JSON, DMN and PMML are read back: equal rule sets, or equal results on all boundary rows."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rule_sets import rule_sets

from modelkit.rules.evaluate import evaluate
from modelkit.rules.export.dmn import from_dmn, to_dmn
from modelkit.rules.export.errors import ExportError
from modelkit.rules.export.json import from_json, schema, to_json
from modelkit.rules.export.pmml import to_pmml
from modelkit.rules.export.pmml_read import from_pmml
from modelkit.rules.model import Policy, RuleSet
from modelkit.rules.samples import boundary_rows

_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
_SCHEMA = jsonschema.Draft202012Validator(schema())


def rows(rules: RuleSet, seed: int) -> dict[str, np.ndarray]:
    table = boundary_rows(rules, np.random.default_rng(seed), declared=False)
    for column in rules.columns:  # these languages have booleans and no infinities
        values = table[column.name]
        if column.type == "boolean":
            table[column.name] = np.where(np.isin(values, (0.0, 1.0)), values, np.nan)
        elif not column.type.is_text:
            table[column.name] = np.where(np.isinf(values), 0.0, values)
    return table


def same(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype == object or right.dtype == object or left.dtype == np.int64:
        return left.tolist() == right.tolist()
    return bool(np.array_equal(left, right, equal_nan=True))


@given(rule_sets())
@_SETTINGS
def test_json_is_valid_and_gives_an_equal_rule_set(rules: RuleSet) -> None:
    text = to_json(rules)
    _SCHEMA.validate(json.loads(text))
    assert from_json(text) == rules
    assert to_json(from_json(text)) == text


@given(rule_sets(), st.integers(0, 99))
@settings(_SETTINGS, max_examples=150)  # the most are refused
def test_dmn_means_the_same(rules: RuleSet, seed: int) -> None:
    try:
        text = to_dmn(rules)
    except ExportError:
        return
    read = from_dmn(text)
    table = rows(rules, seed)
    count = len(next(iter(table.values())))
    given_ = {name: table[outside] for name, outside in read.names.items()} or {"none": np.zeros(count)}
    expected, found = evaluate(rules, table), evaluate(read.rules, given_)
    assert same(expected.result, found.result)
    if rules.policy is not Policy.SCORE:
        ids = np.array([*read.rule_ids, -1])
        assert (ids[found.rule_id] == expected.rule_id).all()


@given(rule_sets(), st.integers(0, 99))
@_SETTINGS
def test_pmml_means_the_same(rules: RuleSet, seed: int) -> None:
    try:
        text = to_pmml(rules)
    except ExportError:
        return
    read, ids = from_pmml(text)
    table = rows(rules, seed)
    expected, found = evaluate(rules, table), evaluate(read, table)
    assert same(expected.result, found.result)
    assert (np.array([*ids, -1])[found.rule_id] == expected.rule_id).all()
    assert {rule.name for rule in read.rules} == {rule.name for rule in rules.rules}
