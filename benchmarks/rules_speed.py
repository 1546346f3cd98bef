"""How long rule sets of 1,000 and 10,000 rules take: reading, checking, building, verifying, and running them.

`python benchmarks/rules_speed.py`; times are of the processor, on one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import table, verdict, write_section

from modelkit.rules.check import check
from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import And, Between, Compare, Condition, In, Operator
from modelkit.rules.document import to_yaml
from modelkit.rules.load import from_yaml
from modelkit.rules.model import Label, Number, Policy, Rule, RuleSet
from modelkit.rules.onnx_build import to_onnx
from modelkit.rules.samples import random_rows
from modelkit.rules.verify import verify
from modelkit.runtime import make_session

BATCH, REPEATS, RUNS = 4096, 20, 5


def scattered(count: int, width: int, literals: int) -> RuleSet:
    """Rules of random comparisons of some of the columns: a first-match list in which many overlap."""
    rng = np.random.default_rng(0)
    letters = list("abcdef")
    columns = tuple(
        Column(f"c{i}", ColumnType.NUMBER, 0, 1, missing=i % 4 == 0)
        if i % 5
        else Column(f"c{i}", ColumnType.CATEGORY, values=tuple(letters), missing=True)
        for i in range(width)
    )
    rules = []
    for index in range(count):
        terms: list[Condition] = []
        for i in rng.choice(width, literals, replace=False):
            low, high = np.sort(np.round(rng.random(2), 3)).tolist()
            name, kind = columns[i].name, int(rng.integers(3))
            if columns[i].type.is_text:
                terms.append(In(name, tuple(rng.choice(letters, 3, replace=False).tolist())))
            elif kind == 0:
                terms.append(Between(name, low, high))
            else:
                terms.append(Compare(name, Operator.GT, low) if kind == 1 else Compare(name, Operator.LE, high))
        rules.append(Rule(f"r{index}", And(tuple(terms)), Label("xyz"[index % 3])))
    return RuleSet(columns, tuple(rules), default=Label("x"))


def leaves(count: int, width: int) -> RuleSet:
    """The leaves of a random tree: rules that cover all input and do not overlap, which the check has to prove."""
    rng = np.random.default_rng(0)
    columns = tuple(Column(f"c{i}", ColumnType.NUMBER, 0, 1) for i in range(width))
    boxes: list[dict[int, tuple[float | None, float | None]]] = [{}]
    while len(boxes) < count:
        box, i = boxes.pop(0), int(rng.integers(width))
        low, high = box.get(i, (None, None))
        cut = float(rng.uniform(low or 0, 1 if high is None else high))
        boxes += [{**box, i: (low, cut)}, {**box, i: (cut, high)}]
    rules = []
    for index, box in enumerate(boxes):
        terms: list[Condition] = []
        for i, (low, high) in box.items():
            terms += [] if low is None else [Compare(f"c{i}", Operator.GT, low)]
            terms += [] if high is None else [Compare(f"c{i}", Operator.LE, high)]
        rules.append(Rule(f"r{index}", And(tuple(terms)), Label("xyz"[index % 3])))
    return RuleSet(columns, tuple(rules), Policy.UNIQUE)


def voting(count: int, width: int, literals: int) -> RuleSet:
    """Scattered rules that vote with uneven weights, whose sums depend on their order."""
    rules, rng = scattered(count, width, literals), np.random.default_rng(1)
    uneven = tuple(replace(rule, weight=float(rng.normal())) for rule in rules.rules)
    return replace(rules, policy=Policy.VOTE, rules=uneven)


def adding(count: int, width: int, literals: int) -> RuleSet:
    """Scattered rules that add uneven numbers."""
    rules, rng = scattered(count, width, literals), np.random.default_rng(1)
    uneven = tuple(replace(rule, then=Number(float(rng.normal()))) for rule in rules.rules)
    return replace(rules, policy=Policy.SCORE, rules=uneven, default=Number(0.1))


def seconds(work: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes, its median over some calls."""
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return float(np.median(times))


@dataclass(frozen=True)
class Speed:
    """What was measured of a rule set."""

    check: float
    rows: float
    cells: list[str]


def measure(rules: RuleSet) -> Speed:
    """Measure a rule set."""
    text = to_yaml(rules)
    reading = seconds(lambda: from_yaml(text))
    read = from_yaml(text)
    report = check(read, seconds=120)
    checking = seconds(lambda: check(read, seconds=120))
    building = seconds(lambda: to_onnx(read).SerializeToString())
    model = to_onnx(read).SerializeToString()
    session = make_session(model)
    table_ = random_rows(read, BATCH, np.random.default_rng(0), declared=True)
    session.run(None, table_)
    running = seconds(lambda: [session.run(None, table_) for _ in range(REPEATS)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.onnx"
        path.write_bytes(model)
        found = verify(read, path)
        verifying = seconds(lambda: verify(read, path))
    rows = REPEATS * BATCH / running
    said = f"complete {report.complete.state}, disjoint {report.disjoint.state}"
    figures = [f"{reading:.1f} s", f"{checking:.1f} s", said, f"{building:.1f} s", f"{len(model) / 1e6:.1f} MB"]
    verified = [f"{found.boundary + found.random:,}", f"{verifying:.1f} s", f"{rows:,.0f}"]
    return Speed(checking, rows, figures + verified)


def main() -> None:
    """Measure all sets and write the section."""
    before = os.getloadavg()[0]
    sets = {
        "1,000 x 20, 2 literals": scattered(1000, 20, 2),
        "1,000 x 20, 5 literals": scattered(1000, 20, 5),
        "1,000 x 20, 20 literals": scattered(1000, 20, 20),
        "1,000 x 20, a tree's": leaves(1000, 20),
        "1,000 x 20, uneven votes": voting(1000, 20, 5),
        "1,000 x 20, uneven sums": adding(1000, 20, 5),
        "10,000 x 20, 8 literals": scattered(10_000, 20, 8),
        "10,000 x 20, a tree's": leaves(10_000, 20),
    }
    found = {}
    for name, rules in sets.items():
        found[name] = measure(rules)
        print(name, found[name].cells, flush=True)
    bar = [speed for name, speed in found.items() if name.startswith("1,000")]
    slowest, fewest = max(speed.check for speed in bar), min(speed.rows for speed in bar)
    head = ["rules x columns", "read", "check", "found", "to ONNX", "size", "rows verified", "verify", "rows/s"]
    body = (
        f"Seconds of the processor, medians of {RUNS} runs, batches of {BATCH:,} rows; the machine's load was "
        f"{before:.1f} before and {os.getloadavg()[0]:.1f} after. The scattered sets are first-match lists in which "
        "hundreds of thousands to millions of pairs overlap, all of which are counted; a tree's leaves are proved to "
        "be complete and disjoint. Uneven votes and sums depend on the order in which they are added, which the file "
        "keeps to.\n\n"
        + table(head, [[name, *speed.cells] for name, speed in found.items()])
        + f"\n\n- 1,000 rules of 20 columns checked within 10 s: {slowest:.1f} s at most, {verdict(slowest <= 10)}."
        + f"\n- 100,000 rows/s with 1,000 rules of 20 columns: {fewest:,.0f} at least, {verdict(fewest >= 1e5)}."
    )
    write_section("rules-speed", "Speed of rules", "python benchmarks/rules_speed.py", body)


if __name__ == "__main__":
    main()
