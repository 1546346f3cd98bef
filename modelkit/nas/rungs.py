"""Full trainings: each candidate gets all epochs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelkit.nas.trials import Trial


class Scheduler(Protocol):
    """Decides how far trials are trained."""

    def resume(self, trials: Sequence[Trial]) -> tuple[Trial, int] | None:
        """A trial that goes on, and up to which epoch; None where a new one is due.

        Args:
            trials: All trials, in the order in which they began.
        """

    def begin(self, trials: Sequence[Trial]) -> int:
        """Up to which epoch a new trial is trained."""


class Full:
    """All epochs for each trial.

    Args:
        epochs: How many.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def resume(self, trials: Sequence[Trial]) -> tuple[Trial, int] | None:
        """See `Scheduler.resume`."""
        return None

    def begin(self, trials: Sequence[Trial]) -> int:
        """See `Scheduler.begin`."""
        return self._epochs


def ladder(least: int, most: int, eta: int) -> list[int]:
    """Epochs of each rung, from the first to all of them: each has about ``eta`` times those of the one before."""
    found = [most]
    while round(found[0] / eta) >= max(1, least) and round(found[0] / eta) < found[0]:
        found.insert(0, round(found[0] / eta))
    return found


def best_share(trials: Sequence[Trial], rung: int, eta: int) -> list[Trial]:
    """The best one in ``eta`` of the trials that have come to a rung, best first."""
    there = [trial for trial in trials if rung in trial.errors]
    there.sort(key=lambda trial: (trial.errors[rung], trial.number))
    return there[: len(there) // eta]
