"""What is to be done and what came of it, in plain values: the one protocol of every kind of worker.

A runner takes tasks and yields events. It knows nothing of models: a task names the function that does it, which a
worker imports. ``modelkit.jobs.local`` runs tasks in processes of this machine, ``modelkit.jobs.cluster`` on a Ray
cluster: both yield the same events. A worker may be on a machine with other disks, so every file that a task works
with is a ``Path`` in its payload, never text, and is named in ``reads`` or lies in the folder of ``writes``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from modelkit.progress import Progress

Entry = Callable[[Mapping[str, Any], Progress], dict[str, Any]]
"""What does a task: takes its payload and a listener, returns plain values that JSON can hold, and Paths."""

Beside = Callable[[Path], list[Path]]
"""Tells what else belongs to a file that a task reads, such as external data: files below the file's folder."""


@dataclass(frozen=True)
class Limits:
    """What one task may use; what is over a limit is killed.

    Attributes:
        seconds: Time from the start of the work, without the start of its worker; None for no limit.
        memory_bytes: Resident memory of the worker and its children; None for no limit.
    """

    seconds: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Task:
    """One piece of work, as plain values that can be sent to another process or machine.

    Attributes:
        name: What to call it; unique among the tasks of a run.
        entry: The function that does it, as ``"package.module:function"``. It comes from code, never from a file.
        payload: What the function is given: paths, numbers, text, resolved configs; all of it can be pickled.
        limits: What it may use.
        cpus: Processors that it keeps busy; a cluster places it by them.
        gpus: The same for accelerators; a share of one is possible.
        reads: Files and folders that it reads, as the payload names them.
        writes: Files that it may write, all in one folder. What else it leaves in that folder counts too.
        beside: The ``Beside`` that tells what belongs to the files in ``reads``, named like the entry. It is called
            where ``run`` was, and only for files that a worker does not see; empty where nothing does.
    """

    name: str
    entry: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    cpus: float = 1
    gpus: float = 0
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    beside: str = ""


class Status(StrEnum):
    """How a task ended."""

    DONE = "done"
    FAILED = "failed"  # its function raised
    CRASHED = "crashed"  # its process died
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Started:
    """A worker began with a task.

    Attributes:
        task: The task.
        worker: Which worker, from 0.
    """

    task: Task
    worker: int


@dataclass(frozen=True)
class Progressed:
    """A task told how far it is: what its ``Progress`` was called with."""

    task: Task
    stage: str
    done: float
    total: float


@dataclass(frozen=True)
class Finished:
    """A task ended, well or not; there is exactly one for each task.

    Attributes:
        task: The task.
        status: How it ended.
        result: What its function returned; None unless it is done.
        reason: Why it is not done, in one line; empty where it is.
        hint: What to do about it.
        exit_code: The code that the failure would give a single run (see modelkit.errors).
        seconds: Time from start to end.
        worker_pid: Process that did it, so that what it left behind can be told; 0 where there was none.
    """

    task: Task
    status: Status
    result: dict[str, Any] | None = None
    reason: str = ""
    hint: str | None = None
    exit_code: int = 0
    seconds: float = 0.0
    worker_pid: int = 0


Event = Started | Progressed | Finished


def imported(name: str) -> Any:
    """Import what ``"package.module:function"`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Runner(Protocol):
    """Runs tasks, several at a time. To be used in a ``with`` block, whose end stops whatever still runs."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Run tasks and tell what happens, until all have ended.

        Args:
            tasks: A task is taken from it only when a worker is free, so a generator may decide late, from
                what came of earlier tasks.

        Yields:
            For each task Started, Progressed now and then, and one Finished. A task that fails never ends the run.

        Raises:
            ModelkitError: No worker can be started at all.
        """

    def __enter__(self) -> Runner:
        """Make ready."""

    def __exit__(self, *exception: object) -> None:
        """Stop all workers and leave nothing behind."""
