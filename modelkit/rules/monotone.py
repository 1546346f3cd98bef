"""The claim that a result does not turn back as one column rises: proved over pairs of neighbouring cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelkit.rules.analysis import Analysis
from modelkit.rules.boxes import Boxes, Region, halves
from modelkit.rules.budget import Budget
from modelkit.rules.conditions import Linear
from modelkit.rules.evaluate import Table, evaluate
from modelkit.rules.model import LinearScore, Monotone, RuleSet
from modelkit.rules.outlook import Forecaster, Outlook
from modelkit.rules.samples import boundary_values
from modelkit.rules.search import OUT_OF_TIME, PROVED, State, Verdict
from modelkit.rules.solver import Found
from modelkit.rules.steps import Steps
from modelkit.rules.table import Row, row_of, table_of


def turning_pair(rules: RuleSet, claim: Monotone, table: Table, rng: np.random.Generator) -> tuple[Row, Row] | None:
    """Two rows that differ in the column only and break the claim, looked for among those of a table.

    Args:
        rules: The rule set.
        claim: The claim.
        table: Rows; the column is varied.
        rng: Source of the other values of the column.
    """
    values = boundary_values(rules, declared=True)[claim.column]
    values = values[np.isfinite(values)]
    first = table[claim.column]
    second = values[rng.integers(len(values), size=len(first))]
    keep = ~np.isnan(first) & (first != second)
    if not keep.any():
        return None
    low = {name: column[keep] for name, column in table.items()}
    high = dict(low)
    low[claim.column] = np.minimum(first, second)[keep]
    high[claim.column] = np.maximum(first, second)[keep]
    turned = turns(rules, claim, low, high)
    if not turned.any():
        return None
    row = int(turned.argmax())
    return row_of(low, row), row_of(high, row)


def turns(rules: RuleSet, claim: Monotone, low: Table, high: Table) -> np.ndarray:
    """On which pairs of rows the claim is broken: bool [N]; ``high`` has the larger value of the column."""
    before, after = evaluate(rules, low), evaluate(rules, high)
    if claim.label is None:
        assert before.prediction is not None and after.prediction is not None
        with np.errstate(invalid="ignore"):
            kept = (
                after.prediction >= before.prediction if claim.increasing else after.prediction <= before.prediction
            )
        return ~kept
    left, right = before.result == claim.label, after.result == claim.label
    return np.asarray(left & ~right if claim.increasing else right & ~left, bool)


def prove_monotone(analysis: Analysis, claim: Monotone, budget: Budget) -> Verdict:
    """Prove or refute the claim.

    A result that does not turn back from any cell of the column to the next does not turn back at all. A region is
    the left row's; the right row's is the same, one cell further.
    """
    rules, space = analysis.rules, analysis.space
    if any(isinstance(key, Linear) and claim.column in dict(key.terms) for key in space.spans):
        return Verdict(State.UNKNOWN, reason=f"linear conditions look at {claim.column}")
    wrong = [o for o in rules.outcomes if isinstance(o, LinearScore) and _turns_inside(o, claim)]
    if wrong:
        return Verdict(State.UNKNOWN, reason=f"linear scores go both ways with {claim.column}")
    axis = space.spans.index(claim.column)
    whole = space.whole()
    if whole.high[axis] < 2:
        return PROVED
    low, high = whole.low.copy(), whole.high.copy()
    low[axis], high[axis] = max(1, int(low[axis])), high[axis] - 1
    return _explore(analysis, claim, axis, replace(whole, low=low, high=high), budget)


def _turns_inside(outcome: LinearScore, claim: Monotone) -> bool:
    factors = [factor for name, factor in outcome.terms if name == claim.column]
    return any(factor < 0 if claim.increasing else factor > 0 for factor in factors)


def _explore(analysis: Analysis, claim: Monotone, axis: int, region: Region, budget: Budget) -> Verdict:
    forecaster = Forecaster(analysis.rules, analysis.space)
    steps = Steps(analysis, claim, axis)
    unknown: Verdict | None = None
    stack = [(region, analysis.boxes)]
    while stack:
        if budget.is_spent:
            return unknown or OUT_OF_TIME
        left, near = stack.pop()
        right = _moved(left, axis, 1)
        union = replace(left, high=right.high)
        near = near.take(near.touching(union))
        sides = [_near(near, side, analysis.rules.picks_one) for side in (left, right)]
        before, after = (forecaster.look(side, *boxes) for side, boxes in zip((left, right), sides, strict=True))
        kept = _kept(claim, before, after)
        if kept is True:
            continue
        nan = before.may_be_nan or after.may_be_nan
        if kept is None and not nan and steps.rise(left, right, sides[0], sides[1]):
            continue
        if kept is False or (before.decided and after.decided):
            verdict = _at_pair(analysis, claim, axis, left, right)
            if verdict.state is State.REFUTED:
                return verdict
            if verdict is PROVED and kept is False:
                verdict = Verdict(State.UNKNOWN, reason="no pair of rows could be verified")
            unknown = verdict if verdict.state is State.UNKNOWN else unknown
            continue
        parts = _split(left, right, axis, sides)
        if parts is None:
            unknown = unknown or Verdict(State.UNKNOWN, reason="it depends on sums, not on comparisons alone")
            continue
        stack += [(part, near) for part in parts]
    return unknown or PROVED


def _moved(region: Region, axis: int, by: int) -> Region:
    low, high = region.low.copy(), region.high.copy()
    low[axis] += by
    high[axis] += by
    return replace(region, low=low, high=high)


def _near(boxes: Boxes, region: Region, ordered: bool) -> tuple[Boxes, np.ndarray]:
    near = boxes.take(boxes.touching(region))
    inside = near.containing(region)
    if ordered and inside.any():
        last = int(inside.argmax()) + 1
        near, inside = near.take(np.arange(last)), inside[:last]
    return near, inside


def _split(
    left: Region, right: Region, axis: int, sides: list[tuple[Boxes, np.ndarray]]
) -> tuple[Region, ...] | None:
    for back, region, (near, inside) in ((0, left, sides[0]), (-1, right, sides[1])):
        parts = halves(near.take(~inside), region)
        if parts is not None:
            return tuple(_moved(part, axis, back) for part in parts)
    return None


def _kept(claim: Monotone, before: Outlook, after: Outlook) -> bool | None:
    if claim.label is None:
        if before.may_be_nan or after.may_be_nan:
            return None
        first, second = (before, after) if claim.increasing else (after, before)
        return True if second.low >= first.high else False if second.high < first.low else None
    first, second = (before, after) if claim.increasing else (after, before)
    named = {claim.label}
    if not first.labels & named or second.labels == named:
        return True
    return False if first.labels == named and not second.labels & named else None


def _at_pair(analysis: Analysis, claim: Monotone, axis: int, left: Region, right: Region) -> Verdict:
    """Look at one pair of rows that stands for all of the region."""
    answer = analysis.rows.row(left)
    if answer.found is Found.EMPTY:
        return PROVED
    other = analysis.rows.row(replace(right, low=np.where(np.arange(len(right.low)) == axis, right.low, left.low)))
    if answer.row is None or other.row is None:
        return Verdict(State.UNKNOWN, reason="no answer for linear conditions")
    pair = (answer.row, {**answer.row, claim.column: other.row[claim.column]})
    broken = turns(analysis.rules, claim, *(table_of(analysis.rules, [row]) for row in pair))[0]
    return Verdict(State.REFUTED, pair) if broken else PROVED
