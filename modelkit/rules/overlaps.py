"""Pairs of rules that fire together, counted exactly; some of them with a row that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from modelkit.rules.analysis import Analysis
from modelkit.rules.budget import Budget
from modelkit.rules.evaluate import holds
from modelkit.rules.model import Rule
from modelkit.rules.search import State, Verdict
from modelkit.rules.solver import Found
from modelkit.rules.table import Row, table_of

_MOST = 20_000_000  # pairs that are remembered


@dataclass
class Overlaps:
    """Pairs of rules that fire together.

    Attributes:
        count: Pairs.
        conflicts: Those with different outcomes.
        at_least: Whether there may be more.
        shown: Some pairs of rule indices, in order, with a row that fires both; conflicts first.
        disjoint: Whether there are none.
        consistent: Whether there are no conflicts.
    """

    count: int = 0
    conflicts: int = 0
    at_least: bool = False
    shown: list[tuple[int, int, Row]] = field(default_factory=list)
    disjoint: Verdict = field(default_factory=lambda: Verdict(State.PROVED))
    consistent: Verdict = field(default_factory=lambda: Verdict(State.PROVED))


def find_overlaps(analysis: Analysis, budget: Budget, limit: int) -> Overlaps:
    """Count pairs of rules that fire together.

    Args:
        analysis: The rule set, taken apart.
        budget: How long it may take.
        limit: Pairs to show of each kind, conflicts and others.
    """
    linear = any(not isinstance(key, str) for key in analysis.space.spans)
    # Where linear conditions restrict boxes, one pair of boxes of two rules may be empty and another not.
    left, right, first, second, complete = _pairs(analysis, budget, once=not linear)
    kinds = _kinds(analysis)
    conflict = kinds[left] != kinds[right]
    found = Overlaps(at_least=not complete or bool(analysis.complex))
    if not linear:
        found.count, found.conflicts = len(left), int(conflict.sum())
        chosen = [*np.flatnonzero(conflict)[:limit], *np.flatnonzero(~conflict)[:limit]]
        for k in chosen:
            row = _row(analysis, int(first[k]), int(second[k]))
            if row is not None:
                found.shown.append((int(left[k]), int(right[k]), row))
        return _judged(found, analysis, complete, 0)
    return _with_solver(analysis, found, budget, limit, (left, right, first, second, conflict), complete)


def _with_solver(
    analysis: Analysis,
    found: Overlaps,
    budget: Budget,
    limit: int,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    complete: bool,
) -> Overlaps:
    """Pairs of boxes may have no row in common where linear conditions restrict them."""
    left, right, first, second, conflict = pairs
    shown = {True: 0, False: 0}
    known: set[tuple[int, int]] = set()
    doubted: set[tuple[int, int]] = set()
    for k in [*np.flatnonzero(conflict), *np.flatnonzero(~conflict)]:
        if budget.is_spent:
            complete, found.at_least = False, True
            break
        pair = (int(left[k]), int(right[k]))
        if pair in known:
            continue
        answer = analysis.rows.row(analysis.boxes.meet(int(first[k]), int(second[k])))
        if answer.found is Found.UNKNOWN:
            doubted.add(pair)
        if answer.row is None:
            continue
        known.add(pair)
        found.count += 1
        found.conflicts += bool(conflict[k])
        if shown[bool(conflict[k])] < limit:
            shown[bool(conflict[k])] += 1
            found.shown.append((*pair, answer.row))
    doubted -= known
    found.at_least |= bool(doubted)
    return _judged(found, analysis, complete, len(doubted))


def _judged(found: Overlaps, analysis: Analysis, complete: bool, doubts: int) -> Overlaps:
    rules = analysis.rules.rules
    why = "" if complete else "the time is up"
    if analysis.complex:
        complete, why = False, "some conditions are too complex to be taken apart"
    if doubts:
        complete, why = False, f"{doubts} pairs with linear conditions are open: {analysis.rows.why_not}"
    unknown = Verdict(State.UNKNOWN, reason=why)
    conflicts = [row for i, j, row in found.shown if _outcome(rules[i]) != _outcome(rules[j])]
    found.consistent = Verdict(State.REFUTED, (conflicts[0],)) if conflicts else Verdict(State.PROVED)
    found.disjoint = Verdict(State.REFUTED, (found.shown[0][2],)) if found.shown else Verdict(State.PROVED)
    if not complete:
        found.consistent = found.consistent if conflicts else unknown
        found.disjoint = found.disjoint if found.shown else unknown
    return found


def _outcome(rule: Rule) -> object:
    return rule.then


def _kinds(analysis: Analysis) -> np.ndarray:
    """For each rule a number that is the same for equal outcomes."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(_outcome(rule), len(known)) for rule in analysis.rules.rules])


def _pairs(
    analysis: Analysis, budget: Budget, *, once: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
    """Pairs of rules whose boxes meet: rule indices (smaller first), a pair of boxes for each, whether all.

    With ``once``, of several pairs of boxes of the same two rules only one is given.
    """
    owner = analysis.boxes.owner
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    total, complete = 0, True
    for first, second in analysis.boxes.pairs():
        keep = owner[first] != owner[second]
        parts.append((first[keep], second[keep]))
        total += int(keep.sum())
        if budget.is_spent or total > _MOST:
            complete = False
            break
    empty = np.zeros(0, np.int64)
    first = np.concatenate([p[0] for p in parts]) if parts else empty
    second = np.concatenate([p[1] for p in parts]) if parts else empty
    left, right = np.minimum(owner[first], owner[second]), np.maximum(owner[first], owner[second])
    if once and len(np.unique(owner)) < len(owner):
        _, kept = np.unique(left * len(analysis.rules.rules) + right, return_index=True)
        left, right, first, second = left[kept], right[kept], first[kept], second[kept]
    return left, right, first, second, complete


def _row(analysis: Analysis, first: int, second: int) -> Row | None:
    """A row in which both boxes' rules fire, verified by the evaluator."""
    answer = analysis.rows.row(analysis.boxes.meet(first, second))
    if answer.row is None:
        return None
    table = table_of(analysis.rules, [answer.row])
    for box in (first, second):
        if not holds(analysis.rules.rules[int(analysis.boxes.owner[box])].when, table)[0]:
            raise AssertionError("a row that was computed for two rules does not fire both")
    return answer.row
