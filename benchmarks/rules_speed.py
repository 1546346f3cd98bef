"""How long rule sets of 1,000 and 10,000 rules take: reading, checking, building, verifying, and running them.

`python benchmarks/rules_speed.py`; times are of the processor, on one thread. Prints a Markdown table.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from modelkit.rules.check import check
from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import And, Between, Compare, Condition, In, Operator
from modelkit.rules.document import to_yaml
from modelkit.rules.load import from_yaml
from modelkit.rules.model import Label, Policy, Rule, RuleSet
from modelkit.rules.onnx_build import to_onnx
from modelkit.rules.samples import random_rows
from modelkit.rules.verify import verify
from modelkit.runtime import make_session

T = TypeVar("T")
BATCH, REPEATS = 4096, 20


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


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of a call and the processor's seconds that it took."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def row(name: str, rules: RuleSet) -> str:
    """Measure a rule set."""
    text = to_yaml(rules)
    read, reading = timed(lambda: from_yaml(text))
    report, checking = timed(lambda: check(read, seconds=120))
    model, building = timed(lambda: to_onnx(read).SerializeToString())
    session = make_session(model)
    table = random_rows(read, BATCH, np.random.default_rng(0), declared=True)
    session.run(None, table)
    _, running = timed(lambda: [session.run(None, table) for _ in range(REPEATS)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.onnx"
        path.write_bytes(model)
        found, verifying = timed(lambda: verify(read, path))
    said = f"complete {report.complete.state}, disjoint {report.disjoint.state}"
    figures = (f"{reading:.1f} s", f"{checking:.1f} s", said, f"{building:.1f} s", f"{len(model) / 1e6:.1f} MB")
    rows = (f"{found.boundary + found.random}", f"{verifying:.1f} s", f"{REPEATS * BATCH / running:,.0f}")
    return f"| {' | '.join((name, *figures, *rows))} |"


if __name__ == "__main__":
    head = ("rules x columns", "read", "check", "found", "to ONNX", "size", "rows verified", "verify", "rows/s")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    print(row("1,000 x 20, 5 literals", scattered(1000, 20, 5)), flush=True)
    print(row("1,000 x 20, 20 literals", scattered(1000, 20, 20)), flush=True)
    print(row("1,000 x 20, a tree's", leaves(1000, 20)), flush=True)
    print(row("10,000 x 20, 8 literals", scattered(10_000, 20, 8)), flush=True)
    print(row("10,000 x 20, a tree's", leaves(10_000, 20)), flush=True)
