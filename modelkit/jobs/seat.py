"""What runs on a node of a cluster: one local worker with its limits, and the files that it was sent."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelkit.jobs.local import LocalRunner
from modelkit.jobs.mirror import CHUNK, Order, is_below, looks, moved, renamed, with_paths
from modelkit.jobs.protocol import Event, Finished, Limits, Progressed, Started, Status, Task
from modelkit.jobs.scratch import Scratch, empty
from modelkit.version import VERSION

_PATIENCE = 1.0  # seconds to wait for something to tell


class Seat:
    """A place on a node where one task runs at a time; an actor of the cluster, called by ``cluster.ClusterRunner``.

    The work is done by a process of its own, as on a single machine (``LocalRunner``): what crashes, hangs or takes
    too much memory ends that process and not the seat. The seat only has to be asked again and again (``listen``).

    Args:
        warm: Modules that the worker imports before its first task.
        threads: Threads of numpy and torch in the worker.
    """

    def __init__(self, warm: Sequence[str], threads: int) -> None:
        self._warm, self._threads = tuple(warm), threads
        self._scratch = Scratch()
        folder = self._scratch.open().resolve()
        self._tree, self._results = folder / "tree", folder / "results"
        empty(self._tree)
        self._kept: dict[str, str] = {}  # what was sent, and how it looks where it comes from
        self._files: dict[str, set[str]] = {}  # the files of each
        self._folders: dict[str, str] = {}  # that were looked through and seen
        self._runner: LocalRunner | None = None
        self._cwd = ""
        self._events: Iterator[Event | None] = iter(())
        self._out: Path | None = None
        self._before: dict[str, tuple[int, int]] = {}
        self._names: list[tuple[str, str]] = []

    def hello(self) -> dict[str, str]:
        """Tell what this node has: ``modelkit`` and ``python`` (versions), ``host``."""
        return {"modelkit": VERSION, "python": platform.python_version(), "host": socket.gethostname()}

    def begin(self, order: Order, send: bool = True) -> list[str]:
        """Begin with a task, unless files are missing.

        Args:
            order: The task.
            send: Whether what is missing will be sent; else the task begins without.

        Returns:
            The files and folders among those that are read which this node neither sees nor was sent. The task has
            begun where there are none.
        """
        here, missing = self._look(order)
        if missing and send:
            return missing
        places = {path: self._place(path) for path in self._kept}
        self._names, self._out = [(str(self._tree), "")], None
        if order.writes is not None:
            self._out = self._open_results(order)
            places[order.writes] = str(self._out)
            self._names.append((str(self._out), order.writes))
        task = Task(
            "task",
            order.entry,
            with_paths(order.payload, lambda path: moved(path, places)),
            Limits(order.seconds, order.memory_bytes),
        )
        self._events = self._ready(here).watch([task])
        return []

    def receive(self, read: str, path: str, chunk: bytes, first: bool) -> None:
        """Take the next bytes of a file that is, or belongs to, one of those that are read."""
        self._files.setdefault(read, set()).add(path)
        target = Path(self._place(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb" if first else "ab") as file:
            file.write(chunk)

    def keep(self, path: str, look: str) -> None:
        """All of a file or folder, and what belongs to it, has been sent."""
        self._kept[path] = look

    def listen(self) -> tuple[Any, ...]:
        """Wait a second at most for something to tell.

        Returns:
            ("nothing",), ("started",), ("progress", stage, done, total), or ("finished", Finished without its task,
            whether the results are on the stage, names and sizes of the results).
        """
        deadline = time.monotonic() + _PATIENCE
        for event in self._events:
            match event:
                case Started():
                    return ("started",)
                case Progressed(_, stage, done, total):
                    return ("progress", stage, done, total)
                case Finished():
                    return self._ended(event)
            if time.monotonic() > deadline:
                break
        return ("nothing",)

    def read(self, name: str, offset: int) -> bytes:
        """The next bytes of a result."""
        assert self._out is not None
        with (self._out / name).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)

    def close(self) -> None:
        """End the worker and remove what was sent."""
        if self._runner is not None:
            self._runner.__exit__(None, None, None)
        self._scratch.close()

    def _look(self, order: Order) -> tuple[str, list[str]]:
        """Where the task runs, and which of its files are missing; those of the task before it are given up.

        The current folder is one thing: if anything below it has to be sent, then all of it that is read.
        """
        self._forget({path for path, look in self._kept.items() if order.reads.get(path) != look})
        unseen = [path for path, look in order.reads.items() if look and not self._sees(path, look)]
        apart = not os.path.isdir(order.here) or any(is_below(path, order.here) for path in unseen)  # noqa: PTH112
        if apart:
            unseen = [path for path in order.reads if path in unseen or is_below(path, order.here)]
        missing = [path for path in unseen if order.reads[path] and path not in self._kept]
        return self._place(order.here) if apart else order.here, missing

    def _forget(self, reads: set[str]) -> None:
        """Remove what was sent for tasks that are over."""
        gone = set().union(*(self._files.pop(read, set()) for read in reads))
        self._kept = {path: look for path, look in self._kept.items() if path not in reads}
        for path in gone.difference(*self._files.values()):
            Path(self._place(path)).unlink(missing_ok=True)

    def _sees(self, path: str, look: str) -> bool:
        """Whether this node has a file under its own name, without being sent it."""
        if self._folders.get(path) == look:
            return True
        if looks(path) != look:
            return False
        if os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir it never raises
            self._folders[path] = look
        return True

    def _place(self, path: str) -> str:
        """Where a file is kept that was sent."""
        return f"{self._tree}{path}"

    def _open_results(self, order: Order) -> Path:
        """The folder that the task writes to, with stand-ins for what is there already."""
        out = self._results
        if order.stage is not None and os.access(order.stage, os.W_OK | os.X_OK):
            out = Path(order.stage)
        else:
            empty(out)
        for name, content in order.there.items():
            (out / name).write_bytes(content)
        self._before = _marks(out)
        return out

    def _ready(self, here: str) -> LocalRunner:
        """The runner of the one worker, which works in the folder given."""
        if self._runner is not None and self._cwd != here:
            self._runner.__exit__(None, None, None)
            self._runner = None
        if self._runner is None:
            Path(here).mkdir(parents=True, exist_ok=True)
            os.chdir(here)
            self._runner = LocalRunner(1, warm=self._warm, threads=self._threads)
            self._runner.__enter__()
            self._cwd = here
        return self._runner

    def _ended(self, event: Finished) -> tuple[Any, ...]:
        told = {name: renamed(getattr(event, name), self._names) for name in ("result", "reason", "hint")}
        results: dict[str, int] = {}
        if self._out is not None and event.status == Status.DONE:
            marks = _marks(self._out)
            results = {name: marks[name][0] for name in sorted(marks) if marks[name] != self._before.get(name)}
        event = Finished(Task("", ""), event.status, exit_code=event.exit_code, seconds=event.seconds, **told)
        return ("finished", event, self._out != self._results, results)


def _marks(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file in a folder."""
    found = {}
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            info = path.stat()
            found[path.name] = (info.st_size, info.st_mtime_ns)
    return found
