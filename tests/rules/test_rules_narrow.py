"""What is taken off a region is covered, cell by cell; short rules are settled by it."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.rules.boxes import Boxes, Region
from modelkit.rules.check import check
from modelkit.rules.load import from_yaml
from modelkit.rules.narrow import narrowed
from modelkit.rules.search import State

CELLS, SPANS, SETS = 5, 2, 2


@st.composite
def some_boxes(draw: st.DrawFn) -> Boxes:
    count = draw(st.integers(0, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    ends = np.sort(rng.integers(0, CELLS, (2, count, SPANS)), axis=0)
    ends[0][rng.random((count, SPANS)) < 0.5] = 0  # many boxes reach an end or go all the way
    ends[1][rng.random((count, SPANS)) < 0.5] = CELLS - 1
    bits = rng.integers(1, 2**CELLS, (count, SETS)).astype(np.uint64)
    bits[rng.random((count, SETS)) < 0.5] = np.uint64(2**CELLS - 1)
    return Boxes(ends[0].astype(np.int32), ends[1].astype(np.int32), bits, np.arange(count))


def cells(region: Region) -> set[tuple[int, ...]]:
    spans = [range(low, high + 1) for low, high in zip(region.low, region.high, strict=True)]
    sets = [[cell for cell in range(CELLS) if int(bits) >> cell & 1] for bits in region.bits]
    return set(product(*spans, *sets))


@settings(max_examples=300, deadline=None)
@given(some_boxes())
def test_takes_off_only_what_is_covered(boxes: Boxes) -> None:
    whole = Region(
        np.zeros(SPANS, np.int32), np.full(SPANS, CELLS - 1, np.int32), np.full(SETS, 2**CELLS - 1, np.uint64)
    )
    covered = set().union(*(cells(boxes.region(i)) for i in range(len(boxes))))
    left = narrowed(boxes, whole)
    kept = set() if left is None else cells(left)
    assert cells(whole) - covered <= kept
    if left is not None:
        assert narrowed(boxes, left) == left or cells(narrowed(boxes, left)) == kept  # type: ignore[arg-type]


def test_many_short_rules_are_proved_to_leave_no_gap() -> None:
    rng = np.random.default_rng(0)
    lines = ["columns:", *(f"  x{i}: {{type: number, range: [0, 1]}}" for i in range(20)), "policy: first", "rules:"]
    for _ in range(300):
        one, two = rng.choice(20, 2, replace=False)
        a, b = np.round(rng.random(2), 3)
        lines.append(
            f"- {{when: x{one} {rng.choice(['<', '>='])} {a} and x{two} {rng.choice(['<', '>='])} {b}, then: a}}"
        )
    started = time.process_time()
    report = check(from_yaml("\n".join(lines)), seconds=60)
    assert report.complete.state is State.PROVED
    assert time.process_time() - started < 20
