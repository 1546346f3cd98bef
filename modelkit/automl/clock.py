"""The time of a run: what is left, and how much of it the end needs."""

from __future__ import annotations

import time


class Clock:
    """Counts down.

    Args:
        seconds: Time of the whole run; None for no limit.
        began: ``time.monotonic()`` of its start.
    """

    def __init__(self, seconds: float | None, began: float) -> None:
        self._seconds, self._began = seconds, began

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds to the end."""
        return float("inf") if self._seconds is None else self._seconds - self.spent

    @property
    def limit(self) -> float | None:
        """Seconds in all; None for no limit."""
        return self._seconds
