"""ASHA: a trial goes on as soon as it is among the best of those that came as far (Li et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from modelkit.nas.rungs import best_share, ladder
from modelkit.nas.trials import Trial


class Asha:
    """Asynchronous successive halving.

    Args:
        least: Epochs of the first rung.
        most: All epochs.
        eta: One in so many goes on.
    """

    def __init__(self, least: int, most: int, eta: int) -> None:
        self._eta, self._ladder = eta, ladder(least, most, eta)

    def resume(self, trials: Sequence[Trial]) -> tuple[Trial, int] | None:
        """See `Scheduler.resume`."""
        for rung, further in reversed(list(zip(self._ladder, self._ladder[1:], strict=False))):
            for trial in best_share(trials, rung, self._eta):
                if trial.is_done and trial.epochs == rung:
                    return trial, further
        return None

    def begin(self, trials: Sequence[Trial]) -> int:
        """See `Scheduler.begin`."""
        return self._ladder[0]
