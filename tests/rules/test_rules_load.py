"""Rules files: every problem at once, each at its line and column; what is written is read back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from rules_random import rule_sets

from modelkit.errors import ConfigError, UsageError
from modelkit.rules.conditions import And, Between, Compare, In, IsMissing, Not, Operator, Or
from modelkit.rules.document import to_yaml
from modelkit.rules.load import from_yaml, load
from modelkit.rules.model import Label, LinearScore, Number, Policy, RuleSet

HEAD = """\
columns:
  x: {type: number, range: [0, 10]}
  kind: {type: category, values: [a, b], missing: true}
  since: date
  member: boolean
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_yaml(text, "r.yaml")
    return caught.value.problems


def rule(when: str) -> RuleSet:
    return from_yaml(f"{HEAD}rules:\n- when: {when}\n  then: yes\n")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rule_sets())
def test_what_is_written_is_read_back(rules: RuleSet) -> None:
    assert from_yaml(to_yaml(rules)) == rules


def test_conditions_as_triples_lists_and_mappings() -> None:
    x, a = Compare("x", Operator.GT, 5.0), Compare("kind", Operator.EQ, "a")
    assert rule("[x, '>', 5.0]").rules[0].when == x
    assert rule("[[x, '>', 5.0], [kind, '=', a]]").rules[0].when == And((x, a))
    assert rule("[x > 5, kind = a]").rules[0].when == And((x, a))
    assert rule("{any of: [x > 5, {not: kind = a}]}").rules[0].when == Or((x, Not(a)))
    assert rule("[x, between, [1, 2]]").rules[0].when == Between("x", 1.0, 2.0)
    assert rule("[kind, not in, [a, b]]").rules[0].when == In("kind", ("a", "b"), negated=True)
    assert rule("[kind, is, missing]").rules[0].when == IsMissing("kind")
    assert rule("[since, '>=', 1970-01-02]").rules[0].when == Compare("since", Operator.GE, 1.0)
    assert rule("[member, '=', true]").rules[0].when == Compare("member", Operator.EQ, 1.0)


def test_outcomes() -> None:
    text = f"{HEAD}rules:\n- {{when: member, then: %s}}\n"
    assert from_yaml(text % "yes").rules[0].then == Label("yes")
    assert from_yaml(text % "3").rules[0].then == Label(3)
    assert from_yaml(text % "3.5").rules[0].then == Number(3.5)
    assert from_yaml("outcome: number\n" + text % "3").rules[0].then == Number(3.0)
    scored = from_yaml("policy: score\n" + text % "{intercept: 1, linear: {x: 2}}")
    assert scored.rules[0].then == LinearScore(1.0, (("x", 2.0),)) and scored.policy is Policy.SCORE


def test_all_problems_with_line_and_column() -> None:
    text = f"""{HEAD}rules:
- when: y > 1 and x = a
  then: yes
- when:
    any of:
    - [x, '=>', 1]
    - [kind, '=', c]
    - "kind = \\"c\\" and
      xx > 1"
  then: no
- when: |
    member and
      kind in [a, d]
  then: no
"""
    assert [line.split(": ")[0] for line in problems(text)] == [
        "r.yaml:7:9",
        "r.yaml:7:23",
        "r.yaml:11:12",
        "r.yaml:12:19",
        "r.yaml:13:16",
        "r.yaml:14:7",
        "r.yaml:18:19",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("[1]", "no mapping"),
        ("a: [", "not valid YAML"),
        (HEAD, "the key 'rules' is missing"),
        (f"{HEAD}rules: []", "not a list of at least 1"),
        (f"{HEAD}rulez: 1\nrules: [{{when: member, then: a}}]", "unknown key 'rulez' (did you mean 'rules'?)"),
        (f"{HEAD}policy: frist\nrules: [{{when: member, then: a}}]", "did you mean 'first'"),
        (f"{HEAD}rules: [{{when: 3, then: a}}]", "3 is not text or a list or a mapping"),
        (
            f"{HEAD}rules: [{{when: member, then: a, name: n}}, {{when: member, then: b, name: n}}]",
            "two rules are called",
        ),
        (f"{HEAD}rules: [{{when: member, then: 1}}, {{when: member, then: b}}]", "some labels are text and some"),
        (f"{HEAD}policy: vote\nrules: [{{when: member, then: 1.5}}]", "needs labels"),
        (f"{HEAD}policy: score\nrules: [{{when: member, then: a}}]", "is no number"),
        (f"{HEAD}labels: [a]\nrules: [{{when: member, then: b}}]", "'b' is not among the labels"),
        (f"{HEAD}default: .nan\nrules: [{{when: member, then: 1.5}}]", "default"),
        (
            f"{HEAD}constraints: [{{forbid: z}}]\nrules: [{{when: member, then: b}}]",
            "r.yaml:6: 'z' is not among the labels",
        ),
        (
            f"{HEAD}constraints: [{{monotone: kind, label: b}}]\nrules: [{{when: member, then: b}}]",
            "needs an ordered column",
        ),
        (f"{HEAD}constraints: [{{clamp: [0, 1], forbid: b}}]\nrules: [{{when: member, then: b}}]", "one of clamp"),
        ("columns: {k: category}\nrules: [{when: k = a, then: b}]", "declares no values"),
        ("columns: {k: {type: number, range: [3, 1]}}\nrules: [{when: k > 1, then: b}]", "ends before it begins"),
        ("columns: {k: {type: date, range: [2020-13-01, null]}}\nrules: [{when: k > 1, then: b}]", "no date"),
        ("columns: {k: text}\nrules: [{when: k > 1, then: b}]", "'number'"),
        (HEAD + "rules:\n- when: " + "{not: " * 70 + "member" + "}" * 70 + "\n  then: a", "deep"),
    ],
)
def test_refused(text: str, said: str) -> None:
    found = problems(text)
    assert any(said in line for line in found), found
    assert all(line.startswith("r.yaml") for line in found)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "bad.yaml")


def test_ten_thousand_rules_are_read_in_seconds() -> None:
    lines = [f"- {{when: 'x > {i} and kind in [a, b] and since < 2020-01-01', then: y}}" for i in range(10_000)]
    started = time.process_time()
    rules = from_yaml(HEAD + "rules:\n" + "\n".join(lines))
    assert len(rules.rules) == 10_000 and time.process_time() - started < 15
