"""Rules that can never decide because those asked before cover them, and input that no rule covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelkit.rules.analysis import Analysis
from modelkit.rules.budget import Budget
from modelkit.rules.evaluate import evaluate, fires, holds
from modelkit.rules.search import OUT_OF_TIME, PROVED, State, Verdict, uncovered
from modelkit.rules.table import Row, table_of


@dataclass(frozen=True)
class Shadow:
    """A rule that never decides.

    Attributes:
        rule: Its index.
        by: Indices of the rules that cover it.
        row: A row on which its condition holds and another rule decides.
    """

    rule: int
    by: tuple[int, ...]
    row: Row


def find_gap(analysis: Analysis, budget: Budget) -> Verdict:
    """Whether every row that can occur makes some rule fire; a row that makes none fire refutes it."""
    verdict = uncovered(analysis.boxes, analysis.space.whole(), analysis.rows, budget)
    if verdict.state is State.REFUTED:
        if fires(analysis.rules, table_of(analysis.rules, verdict.rows)).any():
            if not analysis.complex:
                raise AssertionError("a row that was computed to lie in a gap makes a rule fire")
            return Verdict(State.UNKNOWN, reason="some conditions are too complex to be taken apart")
        return verdict
    return verdict


def find_shadowed(analysis: Analysis, budget: Budget) -> tuple[list[Shadow], Verdict]:
    """Rules that never decide, though their condition can hold.

    Args:
        analysis: The rule set, taken apart, with a policy that asks rules in an order.
        budget: How long it may take.

    Returns:
        The rules, and whether these are all: proved, or why that is not known.
    """
    boxes, found = analysis.boxes, []
    unknown: Verdict | None = None
    starts = np.flatnonzero(np.diff(boxes.owner, prepend=-1))
    ends = np.append(starts[1:], len(boxes))[: len(starts)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if budget.is_spent:
            unknown = unknown or OUT_OF_TIME
            break
        rule = int(boxes.owner[start])
        if rule in analysis.unsure:
            continue
        by: set[int] = set()
        worst = PROVED
        for index in range(start, end):
            region = boxes.region(index)
            before = boxes.take(slice(0, start))
            before = before.take(before.touching(region))
            by |= set(before.owner.tolist())
            verdict = uncovered(before, region, analysis.rows, budget)
            worst = verdict if verdict.state is not State.PROVED else worst
            if worst.state is State.REFUTED:
                break
        row = _row(analysis, rule, range(start, end)) if worst.state is State.PROVED else None
        if row is not None:
            found.append(Shadow(rule, _least(analysis, start, end, by), row))
        elif worst.state is State.UNKNOWN:
            unknown = worst
    if analysis.complex and unknown is None:
        unknown = Verdict(State.UNKNOWN, reason="some conditions are too complex to be taken apart")
    return found, unknown or PROVED


def _row(analysis: Analysis, rule: int, boxes: range) -> Row | None:
    """A row on which a rule's condition holds though another one decides, verified; None where none was found."""
    for index in boxes:
        answer = analysis.rows.row(analysis.boxes.region(index))
        if answer.row is not None:
            table = table_of(analysis.rules, [answer.row])
            if (
                holds(analysis.rules.rules[rule].when, table)[0]
                and evaluate(analysis.rules, table).rule_id[0] != rule
            ):
                return answer.row
    return None


def _least(analysis: Analysis, start: int, end: int, by: set[int]) -> tuple[int, ...]:
    """One rule that covers all of the rule's boxes by itself, where there is one; else all that touch them."""
    boxes = analysis.boxes
    earlier = boxes.take(slice(0, start))
    for owner in sorted(by):
        mine = earlier.take(earlier.owner == owner)
        if all(mine.containing(boxes.region(index)).any() for index in range(start, end)):
            return (owner,)
    return tuple(sorted(by))
