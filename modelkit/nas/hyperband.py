"""Hyperband: successive halving in brackets, from many with few epochs to few with many (Li et al., 2018)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from modelkit.nas.rungs import ladder
from modelkit.nas.trials import Trial


class Hyperband:
    """Brackets one after the other, over and over. Which bracket a trial is of follows from its number.

    Args:
        least: Epochs of the first rung of the first bracket.
        most: All epochs.
        eta: One in so many goes on to the next rung of a bracket.
    """

    def __init__(self, least: int, most: int, eta: int) -> None:
        self._eta, self._ladder = eta, ladder(least, most, eta)
        top = len(self._ladder)
        # Each bracket gets about the same epochs in all.
        self._sizes = [math.ceil(top / (top - first) * eta ** (top - first - 1)) for first in range(top)]

    def resume(self, trials: Sequence[Trial]) -> tuple[Trial, int] | None:
        """See `Scheduler.resume`."""
        for first, mine in self._brackets(trials):
            rungs, alive = self._ladder[first:], mine
            for rung, further in itertools.pairwise(rungs):
                # A rung is halved when all of it has ended.
                if len(mine) < self._sizes[first] or any(t.status in ("new", "running") for t in alive):
                    break
                there = sorted((t for t in alive if rung in t.errors), key=lambda t: (t.errors[rung], t.number))
                alive = there[: max(1, len(alive) // self._eta)]
                for trial in alive:
                    if trial.is_done and trial.epochs == rung:
                        return trial, further
        return None

    def begin(self, trials: Sequence[Trial]) -> int:
        """See `Scheduler.begin`."""
        first = 0
        for first, mine in self._brackets(trials):
            if len(mine) < self._sizes[first]:
                return self._ladder[first]
        return self._ladder[(first + 1) % len(self._sizes) if trials else 0]

    def _brackets(self, trials: Sequence[Trial]) -> list[tuple[int, list[Trial]]]:
        """Each bracket's first rung and its trials, in the order of their numbers."""
        found, begin, first = [], 0, 0
        while begin < len(trials):
            size = self._sizes[first]
            found.append((first, list(trials[begin : begin + size])))
            begin, first = begin + size, (first + 1) % len(self._sizes)
        return found
