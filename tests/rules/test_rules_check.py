"""What a check claims, against brute force over all cells of small rule sets."""

from __future__ import annotations

import time
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from rules_random import rule_sets

from modelkit.rules.check import check
from modelkit.rules.claims import claim_holds
from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import Compare, Linear, Operator
from modelkit.rules.evaluate import Table, evaluate, fires
from modelkit.rules.findings import CheckReport, Kind, Level
from modelkit.rules.load import from_yaml
from modelkit.rules.model import Label, Monotone, Policy, Rule, RuleSet
from modelkit.rules.monotone import turning_pair, turns
from modelkit.rules.samples import boundary_values, random_rows
from modelkit.rules.search import State
from modelkit.rules.table import Row, row_of, table_of

SLOW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def grid(rules: RuleSet) -> Table:
    """A row in every cell that can occur: without linear parts, that is all that can happen."""
    values = boundary_values(rules, declared=True)
    rows = list(product(*(values[column.name].tolist() for column in rules.columns)))[:60_000]
    return table_of(rules, [dict(zip(values, row, strict=True)) for row in rows])


def size(rules: RuleSet) -> int:
    return int(np.prod([len(v) for v in boundary_values(rules, declared=True).values()]))


def verify_rows(report: CheckReport) -> None:
    """Every row in a report shows what it is said to show, and is one that the columns declare."""
    rules = report.rules
    index = {rule.name: i for i, rule in enumerate(rules.rules)}
    for finding in report.findings:
        for row in finding.rows:
            assert_declared(rules, row)
        if finding.kind in (Kind.OVERLAP, Kind.CONFLICT):
            fired = fires(rules, table_of(rules, finding.rows))
            assert all(fired[0, index[name]] for name in finding.rules)
        if finding.kind is Kind.GAP:
            assert not fires(rules, table_of(rules, finding.rows)).any()
        if finding.kind is Kind.SHADOWED:
            table = table_of(rules, finding.rows)
            assert fires(rules, table)[0, index[finding.rules[0]]]
            assert evaluate(rules, table).rule_id[0] != index[finding.rules[0]]
    for claim, (_, verdict) in zip(rules.claims, report.claims, strict=True):
        if verdict.state is State.REFUTED and isinstance(claim, Monotone):
            low, high = (table_of(rules, [row]) for row in verdict.rows)
            assert low[claim.column][0] < high[claim.column][0]
            assert all(
                low[c.name][0] == high[c.name][0] or low[c.name][0] != low[c.name][0]
                for c in rules.columns
                if c.name != claim.column
            )
            assert turns(rules, claim, low, high)[0]
        elif verdict.state is State.REFUTED:
            assert not claim_holds(claim, rules, table_of(rules, verdict.rows))[0]  # type: ignore[arg-type]


def assert_declared(rules: RuleSet, row: Row) -> None:
    from modelkit.rules.table import as_table

    as_table(rules, {name: [value] for name, value in row.items()})


@SLOW
@given(rule_sets(linear=False, most=6, most_columns=3))
def test_agrees_with_brute_force(rules: RuleSet) -> None:
    if size(rules) > 60_000:
        return
    report = check(rules, seconds=20, limit=1000)
    verify_rows(report)
    table = grid(rules)
    fired, result = fires(rules, table), evaluate(rules, table)
    together = (fired.T.astype(int) @ fired.astype(int)) > 0
    pairs = [(i, j) for i in range(len(rules.rules)) for j in range(i) if together[i, j]]
    conflicts = [(i, j) for i, j in pairs if rules.rules[i].then != rules.rules[j].then]
    assert (report.overlaps, report.conflicts, report.at_least) == (len(pairs), len(conflicts), False)
    assert report.complete.state is (State.PROVED if fired.any(axis=1).all() else State.REFUTED)
    assert report.disjoint.state is (State.REFUTED if pairs else State.PROVED)
    assert report.consistent.state is (State.REFUTED if conflicts else State.PROVED)
    dead = {r.name for i, r in enumerate(rules.rules) if not fired[:, i].any()}
    assert {f.rules[0] for f in report.findings if f.kind is Kind.DEAD} == dead
    if rules.policy in (Policy.FIRST, Policy.PRIORITY):
        deciding = {rules.rules[i].name for i in result.rule_id if i >= 0}
        shadowed = {r.name for r in rules.rules} - dead - deciding
        assert {f.rules[0] for f in report.findings if f.kind is Kind.SHADOWED} == shadowed
    for claim, (_, verdict) in zip(rules.claims, report.claims, strict=True):
        if isinstance(claim, Monotone):
            kept = not any_turn(rules, claim, table)
        else:
            kept = bool(claim_holds(claim, rules, table).all())
        assert verdict.state is (State.PROVED if kept else State.REFUTED), (claim, verdict)


def any_turn(rules: RuleSet, claim: Monotone, table: Table) -> bool:
    values = np.sort(table[claim.column])
    values = np.unique(values[~np.isnan(values)])
    for low, high in pairwise(values):
        pair = []
        for value in (low, high):
            pair.append({**table, claim.column: np.full(len(table[claim.column]), value)})
        if turns(rules, claim, *pair).any():
            return True
    return False


@SLOW
@given(rule_sets(linear=True, most=4, most_columns=3))
def test_is_never_wrong_with_linear_parts(rules: RuleSet) -> None:
    report = check(rules, seconds=3, limit=1000)
    verify_rows(report)
    rng = np.random.default_rng(0)
    table = random_rows(rules, 2000, rng, declared=True)
    fired, result = fires(rules, table), evaluate(rules, table)
    if report.complete.state is State.PROVED:
        assert fired.any(axis=1).all()
    if report.disjoint.state is State.PROVED:
        assert (fired.sum(axis=1) < 2).all()
    for i, rule in enumerate(rules.rules):
        found = {finding.kind for finding in report.findings if finding.rules[:1] == (rule.name,)}
        assert Kind.DEAD not in found or not fired[:, i].any()
        assert Kind.SHADOWED not in found or not (result.rule_id == i).any()
    for claim, (_, verdict) in zip(rules.claims, report.claims, strict=True):
        if verdict.state is State.PROVED and isinstance(claim, Monotone):
            assert turning_pair(rules, claim, table, rng) is None
        elif verdict.state is State.PROVED:
            kept = claim_holds(claim, rules, table)
            assert kept.all(), row_of(table, int(kept.argmin()))


def plane(*rules: tuple[str, float, str]) -> RuleSet:
    cols = (Column("x", ColumnType.NUMBER, 0, 1), Column("y", ColumnType.NUMBER, 0, 1))
    made = []
    for i, (op, bound, label) in enumerate(rules):
        made.append(Rule(f"r{i}", Linear((("x", 1.0), ("y", 1.0)), Operator(op), bound), Label(label)))
    return RuleSet(cols, tuple(made), Policy.UNIQUE)


def test_linear_conditions_are_decided_by_the_solver() -> None:
    pytest.importorskip("z3")
    report = check(plane(("<=", 0.5, "a"), (">", 0.6, "b")))
    assert report.disjoint.state is State.PROVED and report.complete.state is State.REFUTED
    assert 0.5 < sum(report.complete.rows[0].values()) <= 0.6  # type: ignore[arg-type]
    report = check(plane(("<=", 2.5, "a"), (">", 3, "b")))
    assert [(f.kind, f.rules) for f in report.findings] == [(Kind.DEAD, ("r1",))]
    assert report.complete.state is State.PROVED


def test_without_the_solver_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkit.rules.solver.find_spec", lambda name: None)
    report = check(plane(("<=", 0.5, "a"), (">", 1.9, "b")))
    assert report.disjoint.state is State.UNKNOWN and "z3" in report.disjoint.reason
    assert not report.fails(strict=False) or report.complete.state is State.REFUTED


def random_set(count: int, columns: int, literals: int) -> RuleSet:
    rng = np.random.default_rng(0)
    cols = tuple(Column(f"x{i}", ColumnType.NUMBER, 0, 1) for i in range(columns))
    lines = ["columns:", *(f"  {c.name}: {{type: number, range: [0, 1]}}" for c in cols), "default: a", "rules:"]
    for i in range(count):
        parts = []
        for column in rng.choice(columns, literals, replace=False):
            low, high = np.sort(np.round(rng.random(2), 3))
            parts.append(f"x{column} between {low} and {high}")
        lines.append(f"- {{when: '{' and '.join(parts)}', then: {'abc'[i % 3]}}}")
    return from_yaml("\n".join(lines))


def test_a_thousand_rules_of_twenty_columns() -> None:
    rules, started = random_set(1000, 20, 6), time.process_time()
    report = check(rules, seconds=120)
    assert report.overlaps > 1000 and report.complete.state is State.REFUTED
    assert not [finding for finding in report.findings if finding.kind is Kind.UNKNOWN]
    assert time.process_time() - started < 10
    verify_rows(report)


def test_what_comes_after_rules_that_cover_all_is_shadowed_by_them() -> None:
    columns = (Column("x", ColumnType.NUMBER, 0, 1), Column("y", ColumnType.NUMBER, 0, 1))
    first = [Compare("x", Operator.LE, 0.5), Compare("y", Operator.GT, 0.25), Compare("x", Operator.GT, 0.4)]
    late = [Compare("y" if i % 2 else "x", Operator.LE, (i + 1) / 50) for i in range(40)]
    rules = tuple(Rule(f"r{i}", when, Label("ab"[i % 2])) for i, when in enumerate(first + late))
    report = check(RuleSet(columns, rules, default=Label("a")))
    shadowed = [finding for finding in report.findings if finding.kind is Kind.SHADOWED]
    assert [finding.rules[0] for finding in shadowed] == [rule.name for rule in rules[3:]]
    assert {name for finding in shadowed for name in finding.rules[1:]} <= {"r0", "r1", "r2"}
    for finding in shadowed:
        fired = fires(report.rules, table_of(report.rules, finding.rows))[0]
        assert fired[int(finding.rules[0][1:])]
        assert fired[:3].any()


def test_time_that_is_up_is_unknown_not_proved() -> None:
    text = ["columns: {x: number, y: number}", "policy: unique", "rules:"]
    text += [f"- {{when: 'x {op} 0 and y {sign} 0', then: a}}" for op in ("<", ">=") for sign in ("<", ">=")]
    rules = from_yaml("\n".join(text))
    assert check(rules).complete.state is State.PROVED
    report = check(rules, seconds=1e-9)
    assert report.complete.state is State.UNKNOWN
    assert report.fails(strict=True)


def test_policies_say_how_bad_an_overlap_is() -> None:
    cols = (Column("x", ColumnType.NUMBER),)
    rules = tuple(Rule(f"r{i}", Compare("x", Operator.GT, float(i)), Label("ab"[i])) for i in range(2))
    for policy, level in ((Policy.UNIQUE, Level.ERROR), (Policy.PRIORITY, Level.WARNING), (Policy.FIRST, Level.NOTE)):
        report = check(RuleSet(cols, rules, policy, default=Label("a")))
        assert [f.level for f in report.findings if f.kind is Kind.CONFLICT] == [level]


def test_every_pair_of_boxes_counts_where_linear_conditions_restrict_them() -> None:
    """A rule of two boxes may meet another in its second box only."""
    pytest.importorskip("z3")
    text = "columns: {x: number}\nrules:\n- {when: x != -1.5, then: a}\n- {when: 0.7 * x > -0.1, then: b}"
    report = check(from_yaml(text))
    assert (report.overlaps, report.conflicts, report.at_least) == (1, 1, False)
    verify_rows(report)


def test_what_fires_on_both_sides_cancels_in_a_sum() -> None:
    text = """\
columns: {age: {type: integer, range: [18, 99]}, income: {type: number, range: [0, 1000000]}}
policy: score
rules:
- {when: age >= 30, then: 40}
- {when: income > 20000, then: {intercept: 10, linear: {income: %s}}}
- {when: age >= 50 and income > 5, then: %s}
constraints: [{monotone: age}, {monotone: income}]
"""
    states = [verdict.state for _, verdict in check(from_yaml(text % (0.5, 1))).claims]
    assert states == [State.PROVED, State.PROVED]
    states = [verdict.state for _, verdict in check(from_yaml(text % (-0.5, -1))).claims]
    assert states == [State.REFUTED, State.REFUTED]
