"""What is shown while a folder of models is worked on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from modelkit.batch.run import Listener
from modelkit.cli.console import console, say, show_line
from modelkit.jobs.protocol import Progressed, Started
from modelkit.report.summary import Row, line
from modelkit.report.text import add_row, cell, new_table

if TYPE_CHECKING:
    from rich.console import RenderableType


class Lines(Listener):
    """A line on stderr for each model as it ends; with JSON, a line on stdout for each model, sorted.

    Args:
        as_json: Whether stdout gets JSON lines. A line waits until all models before it have ended, so that the
            same folder gives the same order.
        quiet: Whether stderr gets nothing.
        verbose: Whether stderr also gets each stage of the work.
    """

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self._json, self._quiet, self._verbose = as_json, quiet, verbose
        self._waiting: dict[str, Row] = {}
        self._order: list[str] = []
        self._stages: dict[str, str] = {}
        self.total = self.done = 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def begin(self, names: list[str]) -> None:
        """See Listener."""
        self.total, self._order = len(names), names[::-1]

    def event(self, event: Started | Progressed) -> None:
        """See Listener."""
        stage = event.stage if isinstance(event, Progressed) else "started"
        if self._verbose and self._stages.get(event.task.name) != stage:
            self._stages[event.task.name] = stage
            say(f"{event.task.name}: {stage}")

    def row(self, row: Row) -> None:
        """See Listener."""
        self.done += 1
        self._stages.pop(row.model, None)
        if not self._quiet:
            self._tell(row)
        if self._json:
            self._waiting[row.model] = row
            while self._order and self._order[-1] in self._waiting:
                show_line(self._waiting.pop(self._order.pop()).to_dict(document=True))

    def _tell(self, row: Row) -> None:
        say(f"[{self.done}/{self.total}] {line(row)}")


class Live(Lines):
    """The lines, and below them a table of what is being worked on."""

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        super().__init__(as_json=as_json, quiet=quiet, verbose=verbose)
        self._running: dict[str, tuple[float, str, float]] = {}
        self._began, self._worked = time.monotonic(), 0
        self._failed = 0

    def __enter__(self) -> Live:
        from rich.live import Live as RichLive

        self._live = RichLive(
            console=console(stderr=True), get_renderable=self._table, transient=True, refresh_per_second=4
        )
        if not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def event(self, event: Started | Progressed) -> None:
        """See Listener."""
        name = event.task.name
        if isinstance(event, Started):
            self._running[name] = (time.monotonic(), "starting", 0.0)
        else:
            began = self._running.get(name, (time.monotonic(), "", 0.0))[0]
            self._running[name] = (began, event.stage, event.done / event.total if event.total else 0.0)

    def row(self, row: Row) -> None:
        """See Listener."""
        self._running.pop(row.model, None)
        self._worked += not row.resumed
        self._failed += row.failed
        super().row(row)

    def _tell(self, row: Row) -> None:
        self._live.console.print(cell(f"[{self.done}/{self.total}] {line(row)}", row.style))

    def _table(self) -> RenderableType:
        head = f"{self.done} of {self.total}"
        if self._failed:
            head += f", {self._failed} failed"
        if self._worked and self.done < self.total:
            left = (time.monotonic() - self._began) / self._worked * (self.total - self.done)
            head += f", about {_clock(left)} left"
        table = new_table(head, "stage", "", "time", numbers=("", "time"))
        if not self._running and self.done < self.total:
            add_row(table, "", "starting workers", "", _clock(time.monotonic() - self._began))
        for name, (began, stage, share) in list(self._running.items()):
            took = _clock(time.monotonic() - began)
            add_row(table, _short(name), stage, f"{100 * share:3.0f} %" if share else "", took)
        return table


def _short(name: str) -> str:
    """A model's path, cut from the left where it is long."""
    return name if len(name) <= 40 else f"…/{PurePosixPath(name).name}"[:60]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
