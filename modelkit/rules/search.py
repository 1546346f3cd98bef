"""Prove or refute something for every row of a region: split it until each part is decided by a few boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from modelkit.rules.boxes import Boxes, Region, halves
from modelkit.rules.budget import Budget
from modelkit.rules.dive import free_region
from modelkit.rules.narrow import narrowed
from modelkit.rules.solver import Found, RowMaker
from modelkit.rules.table import Row


class State(StrEnum):
    """What is known of a statement."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """Whether a statement holds.

    Attributes:
        state: What is known.
        rows: Rows that refute it: one, or two for a statement about pairs.
        reason: Why it is not known.
    """

    state: State
    rows: tuple[Row, ...] = ()
    reason: str = ""


PROVED = Verdict(State.PROVED)
OUT_OF_TIME = Verdict(State.UNKNOWN, reason="the time is up")

Judge = Callable[[Region, Boxes, np.ndarray], Verdict | None]
"""Judges a region, given the boxes that touch it and which of them hold all of it; None where it must be split."""


def explore(
    boxes: Boxes, region: Region, budget: Budget, judge: Judge, *, ordered: bool = False, outside: bool = False
) -> Verdict:
    """Judge all parts of a region.

    Args:
        boxes: The boxes that matter, in the order in which they are asked.
        region: Where the statement must hold.
        budget: How long this may take.
        judge: Decides a part.
        ordered: Whether boxes after the first that holds all of a part do not matter.
        outside: Whether only what lies outside of all boxes is to be judged.

    Returns:
        The first refutation, else whether all parts are proved.
    """
    unknown: Verdict | None = None
    stack = [(region, boxes)]
    while stack:
        if budget.is_spent:
            return unknown or OUT_OF_TIME
        part, near = stack.pop()
        near = near.take(near.touching(part))
        if outside:
            left = narrowed(near, part)
            if left is None:
                continue
            part, near = left, near.take(near.touching(left))
        inside = near.containing(part)
        if ordered and inside.any():
            last = int(inside.argmax()) + 1
            near, inside = near.take(np.arange(last)), inside[:last]
        verdict = judge(part, near, inside)
        if verdict is None:
            parts = halves(near.take(~inside), part)
            if parts is None:
                verdict = Verdict(State.UNKNOWN, reason="it depends on sums, not on comparisons alone")
            else:
                # The emptier side last, so that it is looked at first: refutations are more likely there.
                counts = [int(near.touching(each).sum()) for each in parts]
                stack += [(each, near) for each in (parts if counts[0] >= counts[1] else parts[::-1])]
                continue
        if verdict.state is State.REFUTED:
            return verdict
        if verdict.state is State.UNKNOWN:
            unknown = unknown or verdict
    return unknown or PROVED


def uncovered(boxes: Boxes, region: Region, rows: RowMaker, budget: Budget) -> Verdict:
    """Whether boxes cover all of a region; a row that lies in none of them refutes it."""
    free = free_region(boxes, region)
    if free is not None:
        verdict = at_row(free, rows)
        if verdict.state is State.REFUTED:
            return verdict

    def judge(part: Region, near: Boxes, inside: np.ndarray) -> Verdict | None:
        return None if len(near) else at_row(part, rows)

    return explore(boxes, region, budget, judge, outside=True)


def at_row(part: Region, rows: RowMaker) -> Verdict:
    """Refuted by any row of a region; proved where linear conditions leave it none."""
    answer = rows.row(part)
    if answer.found is Found.ROW and answer.row is not None:
        return Verdict(State.REFUTED, (answer.row,))
    if answer.found is Found.EMPTY:
        return PROVED
    return Verdict(State.UNKNOWN, reason=rows.why_not)
