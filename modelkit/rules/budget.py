"""How long an analysis may take; what it did not get done is then said to be unknown."""

from __future__ import annotations

import time


class Budget:
    """A point in time after which work stops.

    Args:
        seconds: From now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, 0 when none are."""
        return max(0.0, self._end - time.monotonic())

    @property
    def is_spent(self) -> bool:
        """Whether work must stop."""
        return time.monotonic() >= self._end

    def part(self, share: float) -> Budget:
        """A budget of a share of what is left."""
        return Budget(self.left * share)
