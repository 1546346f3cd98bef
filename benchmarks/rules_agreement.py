"""Rules as YAML, ONNX, Python and SQL: how many rows were compared with the evaluator, and how many differ.

Run: python benchmarks/rules_agreement.py [agreement]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import numpy as np
from harness import ROOT, table, verdict, write_section
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(ROOT / "tests" / "rules" / "export"))

from agree import DIFFERENCES
from rule_sets import rule_sets

from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import Between, Compare, Linear, Operator, all_of, any_of
from modelkit.rules.document import to_yaml
from modelkit.rules.evaluate import evaluate
from modelkit.rules.load import from_yaml
from modelkit.rules.model import Label, Number, Policy, Rule, RuleSet
from modelkit.rules.samples import boundary_rows, random_rows

MIN_ROWS = 100_000
_FORMS = ("YAML", *DIFFERENCES)


class Tally:
    """What was compared: rule sets, rows of each kind, and per form rows that differ and seconds."""

    def __init__(self) -> None:
        self.sets, self.boundary, self.random = 0, 0, 0
        self.differ: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def add(self, rules: RuleSet, count: int, rng: np.random.Generator) -> None:
        """Compare one rule set on all boundary rows and on random ones."""
        at, free = boundary_rows(rules, rng, declared=False), random_rows(rules, count, rng, declared=False)
        rows = {name: np.concatenate([at[name], free[name]]) for name in at}
        self.sets += 1
        self.boundary += len(next(iter(at.values())))
        self.random += count
        for form in _FORMS:
            began = time.perf_counter()
            if form == "YAML":
                self.differ[form] += _yaml_differences(rules, rows)
            else:
                self.differ[form] += sum(1 for _ in DIFFERENCES[form](rules, rows))
            self.seconds[form] += time.perf_counter() - began


def _yaml_differences(rules: RuleSet, rows: dict[str, np.ndarray]) -> int:
    """Rows on which the rule set that is read back from its file differs."""
    left, right = evaluate(rules, rows), evaluate(from_yaml(to_yaml(rules)), rows)
    same = (left.rule_id == right.rule_id) & ((left.scores == right.scores) | np.isnan(left.scores)).all(axis=1)
    return int((~same).sum())


def generated(examples: int, rows: int) -> Tally:
    """Rule sets that hypothesis makes: every type, condition, outcome and policy, with hostile names."""
    tally, rng = Tally(), np.random.default_rng(0)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(rule_sets())
    def compare(rules: RuleSet) -> None:
        tally.add(rules, rows, rng)

    compare()
    return tally


def many(policy: Policy, count: int, rng: np.random.Generator) -> RuleSet:
    """A large rule set over 12 columns of numbers, with sums of columns in every fifth rule."""
    columns = tuple(Column(f"x{i}", ColumnType.NUMBER, missing=True) for i in range(12))
    rules = []
    for index in range(count):
        a, b, c = (f"x{i}" for i in rng.choice(12, 3, replace=False))
        low, high = np.sort(np.round(rng.normal(size=2), 6)).tolist()
        when = all_of(Between(a, low, high), any_of(Compare(b, Operator.GT, low), Compare(c, Operator.LE, high)))
        if index % 5 == 0:
            when = all_of(when, Linear(((a, 0.1), (b, -0.7), (c, 1 / 3)), Operator.LT, high))
        score = float(np.round(rng.normal(), 3))
        then = Number(score) if policy is Policy.SCORE else Label(int(rng.integers(5)))
        rules.append(Rule(f"r{index}", when, then, float(rng.integers(3)), float(np.round(rng.random(), 3))))
    return RuleSet(columns, tuple(rules), policy, Number(0.5) if policy is Policy.SCORE else Label(9))


def agreement() -> None:
    """Measure and write the section."""
    groups = [("made by hypothesis", generated(2000, 60))]
    for policy in (Policy.FIRST, Policy.PRIORITY, Policy.VOTE, Policy.SCORE, Policy.COLLECT):
        tally, rng = Tally(), np.random.default_rng(1)
        tally.add(many(policy, 300, rng), 4000, rng)
        groups.append((f"300 rules, {policy}", tally))
    body = []
    for name, tally in groups:
        differ = [tally.differ[form] for form in _FORMS]
        body.append((name, tally.sets, tally.boundary, tally.random, *differ))
    total = [sum(column) for column in zip(*(row[1:] for row in body), strict=True)]
    body.append(("**all**", *total))
    ok = total[2] >= MIN_ROWS and not any(total[3:])
    text = (
        "Every row is computed by the evaluator, by the rule set read back from its YAML, by onnxruntime from the "
        "ONNX file, by the exported Python module and by SQLite from the exported query. Rule, label or prediction, "
        "and scores must be equal doubles, without a tolerance. Boundary rows hold each value at a threshold, one "
        "double below, infinities, and missing values.\n\n"
        f"Bar: at least {MIN_ROWS:,} random rows and all boundary rows, no difference: {verdict(ok)}.\n\n"
    )
    head = ["rule sets", "number", "boundary rows", "random rows", *(f"{form} differs" for form in _FORMS)]
    write_section(
        "rules-agreement",
        "Rules: YAML, ONNX, Python and SQL agree",
        "python benchmarks/rules_agreement.py",
        text + table(head, body),
    )


def main() -> None:
    """Measure the parts that are named; all without."""
    parts = {"agreement": agreement}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *parts])
    for name in parser.parse_args().parts or parts:
        parts[name]()


if __name__ == "__main__":
    main()
