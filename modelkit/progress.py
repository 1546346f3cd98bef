"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by algorithms as they go; the command line draws a bar, a library user may ignore it."""

    def __call__(self, stage: str, done: float, total: float) -> None:
        """Report progress.

        Args:
            stage: What is being done, as a person would say it ("calibrating").
            done: Units finished so far, from 0 to total.
            total: Units in all; 0 where it is not known.
        """


def silent(stage: str, done: float, total: float) -> None:
    """Ignore progress (the default of every function that takes a Progress)."""
