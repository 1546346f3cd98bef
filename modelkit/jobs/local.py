"""Runs tasks in processes of this machine that stay warm; one that crashes, hangs or eats memory is replaced."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from modelkit.cores import usable_cores
from modelkit.errors import ResourceError
from modelkit.jobs.processes import end, ending, families, resident
from modelkit.jobs.protocol import Event, Finished, Progressed, Started, Status, Task
from modelkit.jobs.scratch import Scratch, empty
from modelkit.staging import shown

_TICK = 0.05  # seconds between looks at the memory of workers
_FAMILY_EVERY = 1.0  # seconds between looks for their children
_READY_WITHIN = 120.0  # seconds for a worker to import what it needs
_STARTS = 3  # times that a worker may die before it is ready
_RETIRE_BYTES = 1 << 30  # a worker that keeps this much between tasks makes room for a new one
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class _Worker:
    """A process and what it does.

    Attributes:
        number: Which worker of the runner, from 0.
        folder: Its folder for temporary files.
        process: The process; None until there is a task for it, and after its end.
        channel: The socket to it.
        ready: Whether it has imported what it needs.
        task: What it does, or will do when it is ready.
        began: When the process was started or, once it has begun, the task.
        family: The process and its children, as last seen.
    """

    number: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    channel: Connection | None = None
    ready: bool = False
    task: Task | None = None
    began: float = 0.0
    family: list[int] = field(default_factory=list)


class LocalRunner:
    """The runner of this machine (see ``modelkit.jobs.protocol.Runner``).

    Workers are fresh interpreters, not forks: threads of onnxruntime do not survive a fork. They lead process groups
    of their own, so an interrupt of the terminal reaches only this process, which then ends them. Where this
    process is killed, Linux ends them (PR_SET_PDEATHSIG), other systems let them find out by their socket. Linux does
    the same when the thread that started them ends: run tasks from one thread.

    Args:
        workers: How many tasks run at a time; 1 or more.
        warm: Modules that a worker imports before its first task, outside any time limit.
        holding: Descriptors that workers keep open as long as they live, such as that of a lock.
        threads: Threads of numpy and torch in each worker; None for its share of the cores, unless the environment
            says otherwise.

    Raises:
        ResourceError: This system cannot do it, or there is no room for temporary files.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        warm: Sequence[str] = (),
        holding: Sequence[int] = (),
        threads: int | None = None,
    ) -> None:
        if os.name == "nt":
            raise ResourceError("running many models needs Linux or macOS", "run them one by one")
        self._count, self._warm, self._holding = workers, tuple(warm), tuple(holding)
        self._threads = threads
        self._scratch = Scratch()
        self._workers: list[_Worker] = []
        self._families_at = 0.0
        self._failed_starts = 0

    def __enter__(self) -> LocalRunner:
        folder = self._scratch.open()
        self._workers = [_Worker(number, folder / str(number)) for number in range(self._count)]
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            _stop(worker)
        self._scratch.close()

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Run tasks; see ``Runner.run``."""
        for event in self.watch(tasks):
            if event is not None:
                yield event

    def watch(self, tasks: Iterable[Task]) -> Iterator[Event | None]:
        """Run tasks like ``run``; yields None too, at least each second, for a caller that has to look elsewhere.

        Limits hold only while somebody waits for the next event.
        """
        queue = iter(tasks)
        more = True
        for worker in self._workers:  # of a run that was left before its end
            if worker.task is not None:
                worker.task = None
                _stop(worker)
        while True:
            for worker in self._workers:
                if more and worker.task is None:
                    worker.task = next(queue, None)
                    more = worker.task is not None
                    if more:
                        yield from self._engage(worker)
            busy = [worker for worker in self._workers if worker.task is not None]
            if not busy:
                return
            yield from self._listen(busy)
            yield None

    def _engage(self, worker: _Worker) -> Iterator[Event]:
        """Give a worker its task, or start it: it gets the task as soon as it is ready."""
        if worker.process is not None and worker.process.poll() is not None:  # it died while idle
            _stop(worker)
        if worker.process is None:
            self._start(worker)
        elif worker.ready:
            yield from self._hand_over(worker)

    def _hand_over(self, worker: _Worker) -> Iterator[Event]:
        task = worker.task
        assert task is not None and worker.channel is not None and worker.process is not None
        worker.began, worker.family = time.monotonic(), [worker.process.pid]
        with suppress(OSError):  # its last words are about this task, and no flood of them fills the disk
            os.truncate(worker.folder / "said", 0)
        with suppress(OSError):  # it died this moment: the next look at it tells how
            worker.channel.send(("task", task.entry, dict(task.payload), task.limits.memory_bytes))
        yield Started(task, worker.number)

    def _start(self, worker: _Worker) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            empty(worker.folder)
            with (worker.folder / "said").open("ab") as said:
                worker.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "modelkit.jobs.worker", str(theirs.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    pass_fds=[theirs.fileno(), *self._holding],
                    env=self._environment(worker),
                    start_new_session=True,
                )
        worker.channel = Connection(ours.detach())
        worker.ready, worker.began = False, time.monotonic()
        with suppress(OSError):
            worker.channel.send(("warm", self._warm))

    def _environment(self, worker: _Worker) -> dict[str, str]:
        """The worker finds the same modules, and keeps its temporary files where they are cleaned up after it."""
        paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100 - text in, text out
        share = self._threads or max(1, usable_cores() // self._count)
        threads = {name: str(self._threads or os.environ.get(name, share)) for name in _THREADS}
        return {
            **os.environ,
            **threads,
            "PYTHONPATH": os.pathsep.join(paths),
            "TMPDIR": str(worker.folder),
        }

    def _listen(self, busy: list[_Worker]) -> Iterator[Event]:
        """Wait until something happens, and see to limits."""
        by_channel = {id(worker.channel): worker for worker in busy}
        channels = [worker.channel for worker in busy if worker.channel is not None]
        for heard in wait(channels, self._patience(busy)):
            worker = by_channel[id(heard)]
            try:
                message = heard.recv() if isinstance(heard, Connection) else ()
            except (EOFError, OSError):
                yield from self._died(worker)
            else:
                yield from self._heard(worker, message)
        self._see_families()
        for worker in busy:
            yield from self._check(worker)

    def _patience(self, busy: list[_Worker]) -> float:
        """Seconds that nothing needs to be looked at."""
        if any(worker.task is not None and worker.task.limits.memory_bytes is not None for worker in busy):
            return _TICK
        left = [worker.began + _allowed(worker) - time.monotonic() for worker in busy]
        return min([max(0.0, each) for each in left] + [1.0])

    def _heard(self, worker: _Worker, message: tuple[Any, ...]) -> Iterator[Event]:
        task = worker.task
        assert task is not None
        match message:
            case ("ready",):
                worker.ready, self._failed_starts = True, 0
                yield from self._hand_over(worker)
            case ("progress", stage, done, total):
                yield Progressed(task, stage, done, total)
            case ("done", result):
                finished = self._finished(worker, Status.DONE, result=result)
                self._retire_if_large(worker)
                yield finished
            case ("failed", kind, reason, hint, code):
                memory = kind == "memory"
                status = Status.OUT_OF_MEMORY if memory else Status.FAILED
                finished = self._finished(worker, status, reason=reason, hint=hint, exit_code=code)
                if memory:  # what an interrupted allocation leaves behind is anybody's guess
                    _stop(worker)
                else:
                    self._retire_if_large(worker)
                yield finished

    def _died(self, worker: _Worker) -> Iterator[Event]:
        """A worker's socket is closed: tell how it ended, or start it anew if it had not begun."""
        assert worker.process is not None
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(5)
        end(worker.process)
        how, said = ending(worker.process.returncode), _last_line(worker.folder / "said")
        if not worker.ready:
            yield from self._restart(worker, f"{how}{f': {said}' if said else ''}")
            return
        finished = self._finished(
            worker,
            Status.CRASHED,
            reason=f"its process ended: {how}{f' ({said})' if said else ''}",
            hint="a defect in a library, or a damaged model: run it alone to see more",
            exit_code=5,
        )
        _stop(worker)
        yield finished

    def _restart(self, worker: _Worker, why: str) -> Iterator[Event]:
        self._failed_starts += 1
        _stop(worker)
        if self._failed_starts >= _STARTS:
            raise ResourceError(f"the worker processes do not start: {why}", "is there enough memory for them?")
        yield from self._engage(worker)

    def _check(self, worker: _Worker) -> Iterator[Event]:
        """End a worker that is over a limit."""
        task = worker.task
        if task is None or worker.process is None:
            return
        took = time.monotonic() - worker.began
        if took > _allowed(worker):
            if not worker.ready:
                yield from self._restart(worker, f"not ready after {_READY_WITHIN:.0f} s")
                return
            limit = task.limits.seconds
            yield self._end_over(worker, Status.TIMED_OUT, f"it took longer than {limit:g} s", "--timeout")
            return
        allowed = task.limits.memory_bytes
        if allowed is not None and worker.ready and (used := resident(worker.family)) > allowed:
            reason = f"it used {_mib(used)} of memory; {_mib(allowed)} are allowed"
            yield self._end_over(worker, Status.OUT_OF_MEMORY, reason, "--memory")

    def _end_over(self, worker: _Worker, status: Status, reason: str, flag: str) -> Finished:
        finished = self._finished(worker, status, reason=reason, hint=f"give it more with {flag}", exit_code=5)
        _stop(worker)
        return finished

    def _see_families(self) -> None:
        now = time.monotonic()
        if now - self._families_at < _FAMILY_EVERY:
            return
        self._families_at = now
        watched = {
            worker.process.pid: worker
            for worker in self._workers
            if worker.process is not None and worker.task is not None and worker.task.limits.memory_bytes is not None
        }
        if watched:
            for pid, family in families(watched).items():
                watched[pid].family = family

    def _finished(self, worker: _Worker, status: Status, **details: Any) -> Finished:
        task, worker.task = worker.task, None
        assert task is not None and worker.process is not None
        seconds = time.monotonic() - worker.began
        return Finished(task, status, seconds=seconds, worker_pid=worker.process.pid, **details)

    def _retire_if_large(self, worker: _Worker) -> None:
        assert worker.process is not None
        if resident([worker.process.pid]) > _RETIRE_BYTES:
            _stop(worker)


def _allowed(worker: _Worker) -> float:
    """Seconds that a worker may take for what it does now."""
    if not worker.ready:
        return _READY_WITHIN
    limit = worker.task.limits.seconds if worker.task is not None else None
    return float("inf") if limit is None else limit


def _stop(worker: _Worker) -> None:
    """End a worker's process, if it has one, and remove its temporary files."""
    process, channel = worker.process, worker.channel
    worker.process, worker.channel, worker.ready = None, None, False
    if process is not None:
        end(process)
        shutil.rmtree(worker.folder, ignore_errors=True)
    if channel is not None:
        channel.close()


def _last_line(path: Path) -> str:
    """The last thing that a worker printed, for the reason of its end."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 4096))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return shown(lines[-1].strip())[:200] if lines else ""
    return ""


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
