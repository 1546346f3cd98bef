"""Python and SQL give exactly what the evaluator gives, on all boundary rows and on random ones."""

from __future__ import annotations

import numpy as np
from agree import python_differences, sql_differences
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rule_sets import rule_sets

from modelkit.rules.model import RuleSet
from modelkit.rules.samples import boundary_rows, random_rows

_SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def rows(rules: RuleSet, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    at, free = boundary_rows(rules, rng, declared=False), random_rows(rules, 40, rng, declared=False)
    return {name: np.concatenate([at[name], free[name]]) for name in at}


@given(rule_sets(), st.integers(0, 99))
@_SETTINGS
def test_python_agrees(rules: RuleSet, seed: int) -> None:
    assert not list(python_differences(rules, rows(rules, seed)))[:3]


@given(rule_sets(), st.integers(0, 99))
@_SETTINGS
def test_sql_agrees(rules: RuleSet, seed: int) -> None:
    assert not list(sql_differences(rules, rows(rules, seed)))[:3]
