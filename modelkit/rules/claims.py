"""Claims about a rule set, proved for every row or refuted by one."""

from __future__ import annotations

import numpy as np

from modelkit.rules.analysis import Analysis
from modelkit.rules.axes import NumberAxis
from modelkit.rules.boxes import Boxes, Region
from modelkit.rules.budget import Budget
from modelkit.rules.conditions import ALWAYS
from modelkit.rules.evaluate import Table, evaluate, holds
from modelkit.rules.model import Bound, Claim, Forbid, LinearScore, Monotone, Policy, Require, RuleSet
from modelkit.rules.monotone import prove_monotone, turning_pair
from modelkit.rules.outlook import Forecaster, Outlook
from modelkit.rules.samples import boundary_rows, random_rows
from modelkit.rules.search import PROVED, State, Verdict, at_row, explore
from modelkit.rules.solver import Found
from modelkit.rules.table import row_of
from modelkit.rules.text import condition_text

_SAMPLES = 4096


def claim_text(claim: Claim, rules: RuleSet) -> str:
    """A claim as a sentence."""
    if isinstance(claim, Monotone):
        way = "rises" if claim.increasing else "falls"
        what = "the prediction" if claim.label is None else f"'{claim.label}'"
        return f"{what} never turns back: it {way} with {claim.column}"
    where = "" if claim.when == ALWAYS else f" where {condition_text(claim.when, rules.column)}"
    if isinstance(claim, Bound):
        low = "" if claim.low is None else f"at least {claim.low:g}"
        high = "" if claim.high is None else f"at most {claim.high:g}"
        return f"the prediction is {' and '.join(part for part in (low, high) if part)}{where}"
    names = ", ".join(f"'{label}'" for label in claim.labels)
    return f"{'never' if isinstance(claim, Forbid) else 'always'} {names}{where}"


def claim_holds(claim: Forbid | Require | Bound, rules: RuleSet, table: Table) -> np.ndarray:
    """On which rows a claim that is about single rows is kept: bool [N]."""
    result = evaluate(rules, table)
    concerned = holds(claim.when, table)
    if isinstance(claim, Bound):
        assert result.prediction is not None
        with np.errstate(invalid="ignore"):
            low = True if claim.low is None else result.prediction >= claim.low
            high = True if claim.high is None else result.prediction <= claim.high
        return ~concerned | (np.asarray(low) & np.asarray(high))
    if rules.policy is Policy.COLLECT:
        columns = [rules.classes.index(label) for label in claim.labels]
        named = (result.scores[:, columns] > 0).any(axis=1)
    else:
        named = np.isin(result.result.astype(object), np.array([*claim.labels, None], object)[:-1])
    return ~concerned | (named if isinstance(claim, Require) else ~named)


def prove(analysis: Analysis, index: int, budget: Budget) -> Verdict:
    """Prove or refute one of the claims of a rule set.

    Args:
        analysis: The rule set, taken apart.
        index: Which claim.
        budget: How long it may take.

    Returns:
        The verdict; rows that refute it were evaluated and do break the claim.
    """
    rules, claim = analysis.rules, analysis.rules.claims[index]
    found = _by_sampling(rules, claim)
    if found is not None:
        return found
    if analysis.complex:
        return Verdict(State.UNKNOWN, reason="some conditions are too complex to be taken apart")
    if isinstance(claim, Monotone):
        return prove_monotone(analysis, claim, budget)
    regions = analysis.when[index]
    if regions is None:
        return Verdict(State.UNKNOWN, reason="its condition is too complex to be taken apart")
    worst = PROVED
    for region in regions:
        verdict = _prove_in(analysis, claim, region, budget)
        if verdict.state is State.REFUTED:
            return verdict
        worst = verdict if verdict.state is State.UNKNOWN else worst
    return worst


def _by_sampling(rules: RuleSet, claim: Claim) -> Verdict | None:
    """A refutation that is found on random and boundary rows."""
    rng = np.random.default_rng(0)
    tables = (
        random_rows(rules, _SAMPLES, rng, declared=True),
        boundary_rows(rules, rng, declared=True, limit=_SAMPLES),
    )
    for table in tables:
        if isinstance(claim, Monotone):
            pair = turning_pair(rules, claim, table, rng)
            if pair is not None:
                return Verdict(State.REFUTED, pair)
            continue
        kept = claim_holds(claim, rules, table)
        if not kept.all():
            return Verdict(State.REFUTED, (row_of(table, int(kept.argmin())),))
    return None


def _prove_in(analysis: Analysis, claim: Forbid | Require | Bound, region: Region, budget: Budget) -> Verdict:
    """Prove a claim in one region."""
    rules, rows = analysis.rules, analysis.rows
    forecaster = Forecaster(rules, analysis.space)

    def judge(part: Region, near: Boxes, inside: np.ndarray) -> Verdict | None:
        outlook = forecaster.look(part, near, inside)
        kept = _kept(claim, outlook, rules)
        if kept is True:
            return PROVED
        if kept is None and not outlook.decided:
            return None if not inside.all() else _try_edges(part)
        answer = rows.row(part)
        if answer.found is not Found.ROW or answer.row is None:
            return at_row(part, rows)
        table = {
            name: np.array([value], object if isinstance(value, str) else float) for name, value in answer.row.items()
        }
        if not claim_holds(claim, rules, table)[0]:
            return Verdict(State.REFUTED, (answer.row,))
        return PROVED if outlook.decided else None

    def _try_edges(part: Region) -> Verdict | None:
        """A region in which only sums vary: its ends may refute the claim."""
        answer = rows.row(part)
        if answer.row is None:
            return at_row(part, rows)
        for row in _ends(analysis, part, answer.row):
            table = {
                name: np.array([value], object if isinstance(value, str) else float) for name, value in row.items()
            }
            if not claim_holds(claim, rules, table)[0]:
                return Verdict(State.REFUTED, (row,))
        return None

    return explore(analysis.boxes, region, budget, judge, ordered=rules.picks_one)


def _ends(analysis: Analysis, part: Region, row: dict[str, float | str]) -> list[dict[str, float | str]]:
    """Rows of a region with all columns of linear scores at one end, or some missing."""
    names = {name for o in analysis.rules.outcomes if isinstance(o, LinearScore) for name, _ in o.terms}
    where = {key: i for i, key in enumerate(analysis.space.spans)}
    rng, found = np.random.default_rng(0), []
    for _ in range(32):
        other = dict(row)
        for name in names:
            axis = analysis.space.axes[name]
            assert isinstance(axis, NumberAxis)
            i = where.get(name)
            first, last = (0, axis.size - 1) if i is None else (int(part.low[i]), int(part.high[i]))
            choices = [
                edge for edge in (axis.edges(max(first, 1))[0], axis.edges(max(last, 1))[1]) if np.isfinite(edge)
            ]
            if first == 0 and axis.domain & 1:
                choices.append(float("nan"))
            if choices:
                other[name] = float(rng.choice(choices))
        found.append(other)
    return found


def _kept(claim: Forbid | Require | Bound, outlook: Outlook, rules: RuleSet) -> bool | None:
    """Whether a claim is kept in all of a region (True), nowhere (False), or perhaps (None)."""
    if isinstance(claim, Bound):
        low = -np.inf if claim.low is None else claim.low
        high = np.inf if claim.high is None else claim.high
        if outlook.low >= low and outlook.high <= high and not outlook.may_be_nan:
            return True
        return False if outlook.high < low or outlook.low > high else None
    named = set(claim.labels)
    if rules.policy is Policy.COLLECT:
        never, always = not outlook.labels & named, bool(outlook.surely & named)
    else:
        never, always = not outlook.labels & named, outlook.labels <= named
    if isinstance(claim, Forbid):
        never, always = always, never
    return True if always else False if never else None
