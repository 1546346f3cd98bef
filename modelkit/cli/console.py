"""What a person sees: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkit.errors import ConfigError, ModelkitError
from modelkit.staging import shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from modelkit.cli.outcome import Outcome
    from modelkit.progress import Progress

_SHOW_AFTER = 2.0  # seconds; quicker work needs no progress
_LONGEST = 4000  # characters of an error's line
_LINE_EVERY = 10.0  # seconds between lines where there is no terminal


@dataclass
class State:
    """How this run talks, and how far it is.

    Attributes:
        debug: Show the traceback of an error above its line.
        wrote: Whether the results are in place, so that an interruption must not say otherwise.
        left: What is in place of a run that was cut short in its middle.
        error: The error that ended it.
        ci: What continuous integration is to be told; None where no flag asks for it.
    """

    debug: bool = False
    wrote: bool = False
    left: str = ""
    error: ModelkitError | None = None
    ci: Outcome | None = None


state = State()

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
VerboseFlag = Annotated[bool, typer.Option("--verbose", "-v", help="Print every stage of the work, with times.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def console(*, stderr: bool = False) -> Console:
    """Make a rich console; without a terminal it is plain text of 80 columns (COLUMNS overrides)."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else 80
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def show(what: RenderableType) -> None:
    """Print a table or text on stdout."""
    writer = console()
    with writer.capture() as captured:
        writer.print(what)
    # Tables are padded to their width: of no use in a log, and in the way when a line is copied.
    _write("".join(f"{line.rstrip()}\n" for line in captured.get().removesuffix("\n").split("\n")))


def show_json(value: Any) -> None:
    """Print one JSON document on stdout; the same values always give the same text, what is not finite is null."""
    from modelkit.report.report import finite

    _write(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def show_line(value: Any) -> None:
    """Print one JSON document on a line of stdout."""
    from modelkit.report.report import finite

    _write(json.dumps(finite(value), ensure_ascii=False, allow_nan=False) + "\n")


def show_text(text: str) -> None:
    """Print text on stdout as it is."""
    _write(text if text.endswith("\n") else f"{text}\n")


def _write(text: str) -> None:
    """Write to stdout at once; a reader that has seen enough (``| head``) does not change how the run ends."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()


def drop_stdout() -> None:
    """Send whatever else is printed nowhere, so that Python does not complain about it when it ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def say(text: str, *, quiet: bool = False) -> None:
    """Print a note on stderr."""
    if not quiet:
        print(shown(text), file=sys.stderr)


def fail(error: ModelkitError) -> int:
    """Print an error with all its problems and the hint; returns the exit code."""
    state.error = error
    message, problems = error.message, list(getattr(error, "problems", []))
    if isinstance(error, ConfigError) and len(problems) == 1:
        message, problems = problems[0], []
    print(f"error: {_line(message)}", file=sys.stderr)
    for problem in problems:
        # A single problem is part of the message already.
        if len(problems) > 1 or problem not in message:
            print(f"  {_line(problem)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {_line(error.hint)}", file=sys.stderr)
    return error.exit_code


def _line(text: str) -> str:
    """One line that can be shown: a name in it may come from a hostile file, and be a megabyte long."""
    return shown(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)")


@contextmanager
def progress(*, quiet: bool, verbose: bool = False) -> Iterator[Progress]:
    """Give a Progress that draws a bar with an estimate on a terminal, and prints lines elsewhere."""
    from modelkit.progress import silent

    if quiet:
        yield silent
    elif verbose:
        yield _Stages()
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
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console(stderr=True),
        transient=True,
    )
    task = bar.add_task("starting", total=None)
    started, current, visible = time.monotonic(), "", False
    before = (0.0, 0.0)

    def draw(stage: str, done: float, total: float) -> None:
        nonlocal current, visible, before
        if not visible and time.monotonic() - started > _SHOW_AFTER:
            bar.start()
            visible = True
        if stage != current:
            current = stage
            if _goes_on(before, done, total):
                bar.update(task, description=stage)
            else:
                bar.reset(task, description=stage, total=total or None)
        before = (done, total)
        bar.update(task, completed=done, total=total or None)

    try:
        yield draw
    finally:
        bar.stop()


def _goes_on(before: tuple[float, float], done: float, total: float) -> bool:
    """Whether a new stage counts on where the last one was, as the epochs of a training do."""
    return 0 < before[0] <= done and before[1] == total


class _Lines:
    """Progress for logs: a line now and then, never more than one in ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic() - _LINE_EVERY + _SHOW_AFTER
        self._stage, self._began = "", time.monotonic()
        self._before = (0.0, 0.0)

    def __call__(self, stage: str, done: float, total: float) -> None:
        now = time.monotonic()
        if stage != self._stage:
            if not _goes_on(self._before, done, total):
                self._began = now
            self._stage = stage
        self._before = (done, total)
        if now - self._last < _LINE_EVERY:
            return
        self._last = now
        text = stage
        if total and done:
            left = (now - self._began) * (total - done) / done
            text += f" {100 * done / total:.0f} %, about {left:.0f} s left"
        print(shown(text), file=sys.stderr, flush=True)


class _Stages:
    """Progress for those who want to see all of it: a line for each stage, with the seconds since the start."""

    def __init__(self) -> None:
        self._stage, self._began = "", time.monotonic()

    def __call__(self, stage: str, done: float, total: float) -> None:
        if stage != self._stage:
            self._stage = stage
            print(f"{time.monotonic() - self._began:8.1f} s  {shown(stage)}", file=sys.stderr, flush=True)
