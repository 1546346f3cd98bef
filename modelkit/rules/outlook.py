"""What a rule set may give anywhere in a region: a set of labels or a range of predictions, never too narrow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from modelkit.rules.axes import NumberAxis
from modelkit.rules.boxes import Boxes, Region, Space
from modelkit.rules.model import Action, Label, LinearScore, Number, Outcome, Policy, RuleSet

_SLACK = 1e-12  # relative; sums here are added in another order than the evaluator's


@dataclass(frozen=True)
class Outlook:
    """What may come.

    Attributes:
        labels: Labels that may be given (with `collect`: gathered), "" or -1 for none; empty for predictions.
        low: Smallest prediction.
        high: Largest prediction.
        decided: Whether all rows of the region give the same, so that one row stands for them.
        may_be_nan: Whether a prediction may be NaN.
        surely: With `collect`, labels that are gathered on every row.
    """

    labels: frozenset[str | int] = frozenset()
    low: float = -math.inf
    high: float = math.inf
    decided: bool = False
    may_be_nan: bool = False
    surely: frozenset[str | int] = frozenset()


class Forecaster:
    """Looks ahead over regions of a rule set's space.

    Args:
        rules: The rule set.
        space: Its space.
    """

    def __init__(self, rules: RuleSet, space: Space) -> None:
        self._rules, self._space = rules, space
        self._where = {key: i for i, key in enumerate(space.spans)}
        self._none: str | int = "" if rules.has_text_labels else -1

    def look(self, region: Region, near: Boxes, inside: np.ndarray) -> Outlook:
        """What may come in a region.

        Args:
            region: The region.
            near: The boxes that touch it, in the order in which rules are asked; where one rule decides, none after
                the first that holds all of it.
            inside: Which of them hold all of it.
        """
        sure = set(near.owner[inside].tolist())
        maybe = list(dict.fromkeys(owner for owner in near.owner[~inside].tolist() if owner not in sure))
        policy = self._rules.policy
        if policy is Policy.SCORE:
            return self._sum(region, sure, maybe)
        if policy is Policy.VOTE:
            return self._vote(sure, maybe)
        if policy is Policy.COLLECT:
            return self._collected(sure, maybe)
        return self._one(region, sure, maybe)

    def _one(self, region: Region, sure: set[int], maybe: list[int]) -> Outlook:
        rules = self._rules
        outcomes: list[Outcome | None] = [rules.rules[i].then for i in (*maybe, *sure)]
        if not sure:
            outcomes.append(rules.default)
        if not rules.is_numeric:
            labels = frozenset(self._label(outcome) for outcome in outcomes)
            return Outlook(labels, decided=len(labels) == 1)
        ranges = [self.range(outcome, region) for outcome in outcomes]
        constant = all(isinstance(outcome, Number) for outcome in outcomes)
        same = constant and len({low for low, _, _ in ranges}) == 1
        return self._clamped(ranges, same)

    def _label(self, outcome: Outcome | None) -> str | int:
        """The label of an outcome, or what stands for none."""
        return outcome.value if isinstance(outcome, Label | Action) else self._none

    def _clamped(self, ranges: list[tuple[float, float, bool]], decided: bool) -> Outlook:
        low, high = min(low for low, _, _ in ranges), max(high for _, high, _ in ranges)
        clamp = self._rules.clamp
        if clamp is not None and clamp.low is not None:
            low, high = max(low, clamp.low), max(high, clamp.low)
        if clamp is not None and clamp.high is not None:
            low, high = min(low, clamp.high), min(high, clamp.high)
        return Outlook(low=low, high=high, decided=decided, may_be_nan=any(nan for _, _, nan in ranges))

    def range(self, outcome: Outcome | None, region: Region) -> tuple[float, float, bool]:
        """Least and largest value of an outcome in a region, and whether it may be NaN."""
        if isinstance(outcome, Number):
            return outcome.value, outcome.value, False
        if not isinstance(outcome, LinearScore):
            return math.inf, -math.inf, True
        # Rounding keeps the order of numbers, so sums of the ends bound all sums.
        low = high = outcome.intercept
        nan = False
        for name, factor in outcome.terms:
            first, last, missing = self._edges(name, region)
            nan |= missing or (not math.isfinite(first + last) and factor == 0)
            ends = sorted((first * factor, last * factor)) if factor else (0.0, 0.0)
            low, high = low + ends[0], high + ends[1]
        return low, high, nan or math.isnan(low) or math.isnan(high)

    def _edges(self, name: str, region: Region) -> tuple[float, float, bool]:
        """Least and largest value of a column in a region, and whether it may be missing."""
        axis = self._space.axes[name]
        assert isinstance(axis, NumberAxis)
        index = self._where.get(name)
        first, last = (0, axis.size - 1) if index is None else (int(region.low[index]), int(region.high[index]))
        missing = first == 0 and bool(axis.domain & 1)
        if last == 0:
            return 0.0, 0.0, True
        return axis.edges(max(first, 1))[0], axis.edges(last)[1], missing

    def _sum(self, region: Region, sure: set[int], maybe: list[int]) -> Outlook:
        rules = self._rules
        base = (0.0, 0.0, False) if rules.default is None else self.range(rules.default, region)
        ranges = {i: self.range(rules.rules[i].then, region) for i in (*sorted(sure), *maybe)}
        outcomes = [rules.default, *(rules.rules[i].then for i in sure)]
        decided = not maybe and not any(isinstance(outcome, LinearScore) for outcome in outcomes)
        low = base[0] + sum(ranges[i][0] for i in sorted(sure)) + sum(min(0.0, ranges[i][0]) for i in maybe)
        high = base[1] + sum(ranges[i][1] for i in sorted(sure)) + sum(max(0.0, ranges[i][1]) for i in maybe)
        size = abs(base[0]) + abs(base[1]) + sum(abs(a) + abs(b) for a, b, _ in ranges.values())
        slack = _SLACK * size if math.isfinite(size) else 0.0
        nan = base[2] or any(r[2] for r in ranges.values())
        return self._clamped([(low - slack, high + slack, nan)], decided)

    def _vote(self, sure: set[int], maybe: list[int]) -> Outlook:
        rules = self._rules
        low = {label: dict(rules.base).get(label, 0.0) for label in rules.classes}
        high = dict(low)
        size = sum(map(abs, low.values()))
        for i in (*sorted(sure), *maybe):
            label, weight = self._label(rules.rules[i].then), rules.rules[i].weight
            size += abs(weight)
            low[label] += weight if i in sure else min(0.0, weight)
            high[label] += weight if i in sure else max(0.0, weight)
        least = max(low.values()) - _SLACK * size
        labels = {label for label in rules.classes if high[label] >= least}
        if not sure and not rules.base:
            default = self._label(rules.default)
            labels = labels | {default} if maybe else {default}
        return Outlook(frozenset(labels), decided=not maybe or len(labels) == 1)

    def _collected(self, sure: set[int], maybe: list[int]) -> Outlook:
        rules = self._rules
        surely = {self._label(rules.rules[i].then) for i in sure}
        labels = surely | {self._label(rules.rules[i].then) for i in maybe}
        if not sure and rules.default is not None:
            labels.add(self._label(rules.default))
            if not maybe:
                surely = set(labels)
        return Outlook(frozenset(labels), decided=not maybe, surely=frozenset(surely))
