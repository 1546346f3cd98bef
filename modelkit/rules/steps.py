"""How predictions change from one cell of a column to the next, rule by rule: what fires on both sides cancels."""

from __future__ import annotations

import math

import numpy as np

from modelkit.rules.analysis import Analysis
from modelkit.rules.boxes import Boxes, Region
from modelkit.rules.model import Monotone, Policy
from modelkit.rules.outlook import Forecaster

_SLACK = 1e-12  # relative, for the rounding of sums

Side = tuple[Boxes, np.ndarray]
"""The boxes that touch a region, and which of them hold all of it."""


class Steps:
    """Compares neighbouring cells of a column, where linear scores go the right way with it or not at all.

    Args:
        analysis: The rule set, taken apart.
        claim: That the prediction rises (or falls) with the column.
        axis: The column's place among the span axes.
    """

    def __init__(self, analysis: Analysis, claim: Monotone, axis: int) -> None:
        self._rules, self._sign = analysis.rules, 1.0 if claim.increasing else -1.0
        self._forecaster = Forecaster(analysis.rules, analysis.space)
        whole = analysis.space.whole()
        boxes = analysis.boxes
        full = (boxes.low[:, axis] <= max(1, int(whole.low[axis]))) & (boxes.high[:, axis] == whole.high[axis])
        self._fixed = set(boxes.owner.tolist()) - set(boxes.owner[~full].tolist())

    def rise(self, left: Region, right: Region, before: Side, after: Side) -> bool:
        """Whether a prediction surely does not turn back between two regions that differ in the column only.

        It must not be NaN in either.

        Args:
            left: The region with the smaller values.
            right: The other.
            before: Boxes of the left one, in the order in which rules are asked.
            after: Those of the right one.
        """
        if not self._rules.is_numeric:
            return False
        if self._rules.policy is Policy.SCORE:
            return self._sums(left, right, before, after)
        deciding = [self._deciding(side) for side in (before, after)]
        # Where one and the same rule decides on both sides, only its own score changes, and that the right way.
        return deciding[0] is not None and deciding[0] == deciding[1]

    def _deciding(self, side: Side) -> int | None:
        """The rule that decides all of a region, -1 for the default; None where that differs."""
        near, inside = side
        if not len(near):
            return -1
        owners = set(near.owner.tolist())
        return owners.pop() if len(owners) == 1 and inside.any() else None

    def _sums(self, left: Region, right: Region, before: Side, after: Side) -> bool:
        """Whether a sum surely rises: each addend does, or all together by more than rounding may take away."""
        change, size = 0.0, 0.0
        falls = False
        states = [self._states(side) for side in (before, after)]
        for rule in sorted(set(states[0]) | set(states[1])):
            first, second = states[0].get(rule, False), states[1].get(rule, False)
            if rule in self._fixed or (first is True and second is True):
                continue  # rounding keeps the order of sums with the same or larger addends
            low, high = self._range(rule, left, right)
            least = min(
                (on_right * value - on_left * value)
                for on_left in ((0, 1) if first is None else (int(first),))
                for on_right in ((0, 1) if second is None else (int(second),))
                for value in (low, high)
            )
            falls |= least < 0
            change += least
            size += max(abs(low), abs(high))
        if not falls:
            return True
        total = sum(abs(end) for rule in states[0] | states[1] for end in self._range(rule, left, right)) + size
        return math.isfinite(total) and change > _SLACK * total

    def _states(self, side: Side) -> dict[int, bool | None]:
        """Rules that fire on all of a region (True) or perhaps on a part of it (None)."""
        near, inside = side
        found: dict[int, bool | None] = dict.fromkeys(near.owner.tolist(), None)
        found.update(dict.fromkeys(near.owner[inside].tolist(), True))
        return found

    def _range(self, rule: int, left: Region, right: Region) -> tuple[float, float]:
        """Least and largest of what a rule adds in either region, signed so that rising is right."""
        outcome = self._rules.rules[rule].then
        ends = [end for region in (left, right) for end in self._forecaster.range(outcome, region)[:2]]
        signed = [self._sign * end for end in ends]
        return min(signed), max(signed)
