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


def find_shadowed(
    analysis: Analysis, budget: Budget, complete: State = State.UNKNOWN
) -> tuple[list[Shadow], Verdict]:
    """Rules that never decide, though their condition can hold.

    Args:
        analysis: The rule set, taken apart, with a policy that asks rules in an order.
        budget: How long it may take.
        complete: Whether the rules are known to cover all input. Where they do, a first part of them often does, and
            what comes after it needs no proof of its own.

    Returns:
        The rules, and whether these are all: proved, or why that is not known.
    """
    boxes, covered = analysis.boxes, []
    unknown: Verdict | None = None
    starts = np.flatnonzero(np.diff(boxes.owner, prepend=-1))
    ends = np.append(starts[1:], len(boxes))[: len(starts)]
    enough = _enough(analysis, starts, budget.part(0.5)) if complete is State.PROVED else len(boxes)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if budget.is_spent:
            unknown = unknown or OUT_OF_TIME
            break
        if int(boxes.owner[start]) in analysis.unsure:
            continue
        by: set[int] = set()
        worst = PROVED
        for index in range(start, end):
            region = boxes.region(index)
            before = boxes.take(slice(0, min(start, enough)))
            before = before.take(before.touching(region))
            by |= set(before.owner.tolist())
            verdict = PROVED if start >= enough else uncovered(before, region, analysis.rows, budget)
            worst = verdict if verdict.state is not State.PROVED else worst
            if worst.state is State.REFUTED:
                break
        if worst.state is State.PROVED:
            covered.append((start, end, by))
        elif worst.state is State.UNKNOWN:
            unknown = worst
    if analysis.complex and unknown is None:
        unknown = Verdict(State.UNKNOWN, reason="some conditions are too complex to be taken apart")
    return _shadows(analysis, covered), unknown or PROVED


def _enough(analysis: Analysis, starts: np.ndarray, budget: Budget) -> int:
    """How many boxes, up to a rule's first, cover all input already; all of them where no fewer are known to."""
    boxes, whole = analysis.boxes, analysis.space.whole()
    least, most = 0, len(starts)  # the rules before `most` cover all, those before `least` are not known to
    while most - least > 1 and not budget.is_spent:
        middle = (least + most) // 2
        verdict = uncovered(boxes.take(slice(0, int(starts[middle]))), whole, analysis.rows, budget)
        least, most = (least, middle) if verdict.state is State.PROVED else (middle, most)
    return int(starts[most]) if most < len(starts) else len(boxes)


def _shadows(analysis: Analysis, covered: list[tuple[int, int, set[int]]]) -> list[Shadow]:
    """Rules with a row on which their condition holds though another one decides; others are left out.

    Args:
        analysis: The rule set, taken apart.
        covered: First and last box of each rule whose boxes are all covered, and the rules that touch them.
    """
    rules, found = analysis.rules, []
    firsts = [analysis.rows.row(analysis.boxes.region(start)).row for start, _, _ in covered]
    rows = [row for row in firsts if row is not None]
    # All at once: evaluating a row takes as long as evaluating a thousand.
    decides = iter(evaluate(rules, table_of(rules, rows)).rule_id.tolist() if rows else [])
    for (start, end, by), first in zip(covered, firsts, strict=True):
        rule = int(analysis.boxes.owner[start])
        if first is not None and next(decides) != rule and holds(rules.rules[rule].when, table_of(rules, [first]))[0]:
            row: Row | None = first
        else:
            row = _row(analysis, rule, range(start + 1, end))
        if row is not None:
            found.append(Shadow(rule, _least(analysis, start, end, by), row))
    return found


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
