"""Ordered rule lists, improved directly on what they get right.

In a list of which the first rule that holds decides, what a row gains by a rule at some place is known row by row:
the target of the rule's class less the target of the class that the rest of the list gives. The gain of a box is the
sum over its rows that no earlier rule takes, so a beam search finds the best rule for a place exactly as it would a
first rule; rules are inserted, exchanged and dropped so until nothing helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modelkit.rules.learn import compose
from modelkit.rules.learn.atoms import Atoms
from modelkit.rules.learn.beam import Beam, best_boxes
from modelkit.rules.learn.problem import Problem
from modelkit.rules.model import RuleSet

_PASSES = 4
_TINY = 1e-6

Entry = tuple[tuple[int, ...], int]
"""Comparisons of a rule, and its class."""


@dataclass(frozen=True)
class ListSettings:
    """How lists are searched; the beam's price is in rows."""

    beam: Beam = field(default_factory=lambda: Beam(price=0.5))


class ListSearch:
    """Local search over rule lists.

    Args:
        problem: The rows, classes as outcomes.
        atoms: The comparisons.
        settings: How.
    """

    def __init__(self, problem: Problem, atoms: Atoms, settings: ListSettings) -> None:
        self._problem, self._atoms, self._settings = problem, atoms, settings
        self._target = problem.target

    def value(self, entries: Sequence[Entry], default: int) -> float:
        """Target that the list's classes sum up to, the price of comparisons taken off."""
        price = self._settings.beam.price * sum(len(box) for box, _ in entries)
        return float(self._rest(entries, default, 0).sum() - price)

    def _rest(self, entries: Sequence[Entry], default: int, start: int) -> np.ndarray:
        """What each row gets from the list from some place on: float64 [N]."""
        gets = self._target[:, default].copy()
        for box, class_ in reversed(entries[start:]):
            inside = self._atoms.box(box)
            gets[inside] = self._target[inside, class_]
        return gets

    def _reaching(self, entries: Sequence[Entry], place: int) -> np.ndarray:
        free = np.ones(len(self._target), bool)
        for box, _ in entries[:place]:
            free &= ~self._atoms.box(box)
        return free

    def best_default(self, entries: Sequence[Entry]) -> int:
        """The class that is best for the rows that no rule takes (or for all, where there are none)."""
        free = self._reaching(entries, len(entries))
        return int(self._target[free if free.any() else slice(None)].sum(axis=0).argmax())

    def insert(self, entries: list[Entry], default: int, places: Sequence[int]) -> tuple[list[Entry], float]:
        """Put in the one rule that adds most, at one of some places; returns the list and the gain."""
        best: tuple[float, int, Entry] | None = None
        for place in places:
            free = self._reaching(entries, place)
            gain = np.where(free[:, None], self._target - self._rest(entries, default, place)[:, None], 0.0)
            found = best_boxes(self._atoms, gain, lambda sums, _: sums.max(axis=1), self._settings.beam, free)
            if found and (best is None or found[0].score > best[0] + _TINY):
                box = found[0].atoms
                class_ = int(gain[self._atoms.box(box)].sum(axis=0).argmax())
                best = found[0].score, place, (box, class_)
        if best is None:
            return entries, -np.inf
        gain_, place, entry = best
        return [*entries[:place], entry, *entries[place:]], gain_

    def improve(self, entries: list[Entry], default: int) -> tuple[list[Entry], int]:
        """Exchange and drop rules, and choose the default anew, until nothing helps."""
        value = self.value(entries, default)
        for _ in range(_PASSES):
            before = value
            for place in range(len(entries)):
                if place >= len(entries):
                    break
                rest = [*entries[:place], *entries[place + 1 :]]
                trial, gain = self.insert(rest, default, [place])
                bare = self.value(rest, default)
                if bare >= value - _TINY and bare >= bare + gain - _TINY:
                    entries, value = rest, bare
                elif bare + gain > value + _TINY:
                    entries, value = trial, self.value(trial, default)
            other = self.best_default(entries)
            if self.value(entries, other) > value + _TINY:
                default, value = other, self.value(entries, other)
            if value < before + _TINY:
                break
        return entries, default

    def rules(self, entries: Sequence[Entry], default: int, name: str = "rules") -> RuleSet:
        """The list as a rule set."""
        boxes = [tuple(self._atoms.literals[i] for i in box) for box, _ in entries]
        return compose.first_match(self._problem, boxes, [class_ for _, class_ in entries], default, name)


def list_path(problem: Problem, atoms: Atoms, sizes: Sequence[int], settings: ListSettings) -> dict[int, RuleSet]:
    """Rule lists of several sizes, the default counted as a rule.

    Args:
        problem: The rows, classes as outcomes.
        atoms: The comparisons.
        sizes: Numbers of rules, ascending.
        settings: How.

    Returns:
        A rule set for each size that could be reached.
    """
    search = ListSearch(problem, atoms, settings)
    entries: list[Entry] = []
    default, found, full = search.best_default([]), {}, False
    for size in sizes:
        while len(entries) < size - 1 and not full:
            # Near the end a new rule only sees what is left; near the front it may cut into others.
            places = sorted({0, *range(max(0, len(entries) - 2), len(entries) + 1)})
            trial, gain = search.insert(entries, default, places)
            if gain <= _TINY:
                full = True
                break
            entries, default = search.improve(trial, default)
            full = len(entries) < len(trial)
        if entries:
            found[size] = search.rules(entries, default)
    return found
