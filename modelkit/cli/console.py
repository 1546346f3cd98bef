"""What a person sees: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkit.errors import ModelkitError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from modelkit.progress import Progress

_SHOW_AFTER = 2.0  # seconds; quicker work needs no progress
_LINE_EVERY = 10.0  # seconds between lines where there is no terminal


@dataclass
class State:
    """How this run talks.

    Attributes:
        debug: Tracebacks instead of one-line errors.
    """

    debug: bool = False


state = State()

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def console(*, stderr: bool = False) -> Console:
    """Make a rich console; without a terminal it is plain text of 80 columns (COLUMNS overrides)."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else 80
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def show(what: RenderableType) -> None:
    """Print a table or text on stdout."""
    console().print(what)


def show_json(value: Any) -> None:
    """Print one JSON document on stdout; the same values always give the same text."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def say(text: str, *, quiet: bool = False) -> None:
    """Print a note on stderr."""
    if not quiet:
        print(text, file=sys.stderr)


def fail(error: ModelkitError) -> int:
    """Print an error with all its problems and the hint; returns the exit code."""
    print(f"error: {error.message}", file=sys.stderr)
    for problem in getattr(error, "problems", []):
        print(f"  {problem}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Give a Progress that draws a bar with an estimate on a terminal, and prints lines elsewhere."""
    from modelkit.progress import silent

    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bar() as draw:
            yield draw
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
    )
    task = bar.add_task("starting", total=None)
    started, current, visible = time.monotonic(), "", False

    def draw(stage: str, done: float, total: float) -> None:
        nonlocal current, visible
        if not visible and time.monotonic() - started > _SHOW_AFTER:
            bar.start()
            visible = True
        if stage != current:
            current = stage
            bar.reset(task, description=stage, total=total or None)
        bar.update(task, completed=done, total=total or None)

    try:
        yield draw
    finally:
        bar.stop()


class _Lines:
    """Progress for logs: a line now and then, never more than one in ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic() - _LINE_EVERY + _SHOW_AFTER
        self._stage, self._began = "", time.monotonic()

    def __call__(self, stage: str, done: float, total: float) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, now
        if now - self._last < _LINE_EVERY:
            return
        self._last = now
        text = stage
        if total and done:
            left = (now - self._began) * (total - done) / done
            text += f" {100 * done / total:.0f} %, about {left:.0f} s left"
        print(text, file=sys.stderr, flush=True)
