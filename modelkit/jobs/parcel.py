"""One task on its way to another machine and back: what is sent, and results that are published here, all or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelkit.errors import ModelkitError
from modelkit.jobs.mirror import CHUNK, Order, absolute, files_below, looks, renamed, with_paths
from modelkit.jobs.protocol import Finished, Status, Task, imported
from modelkit.staging import Staging

_READABLE = 1 << 20  # bytes of a result of an earlier run that a task may want to read


class Parcel:
    """A task, the files that it needs and those that it makes; to be used in a ``with`` block.

    Results are made on a stage beside their place, by the worker itself where it sees this machine's files, else of
    what it sends back. They are put in place in ``unpack``: a worker that was given up can do no harm.

    Args:
        task: The task.
        put: Puts bytes into the cluster's object store, and returns what stands for them.
        folders: How folders look that were looked through before; they are taken not to change.

    Raises:
        ResourceError: The folder of results cannot be written (in ``__enter__``).
    """

    def __init__(self, task: Task, put: Callable[[bytes], Any], folders: dict[str, str]) -> None:
        self._task, self._put, self._folders = task, put, folders
        self._stack = ExitStack()
        self._stage: Staging | None = None
        self._writes = task.writes[0].parent if task.writes else None

    def __enter__(self) -> Parcel:
        try:
            self.order = self._order()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _order(self) -> Order:
        task, stage = self._task, None
        if self._writes is not None:
            self._stage = self._stack.enter_context(Staging(self._writes))
            stage = absolute(self._stage.path("results").parent)
        return Order(
            task.entry,
            with_paths(dict(task.payload), lambda path: Path(absolute(path))),
            task.limits.seconds,
            task.limits.memory_bytes,
            here=str(Path.cwd()),
            reads={absolute(path): self._looks(absolute(path)) for path in task.reads},
            writes=None if self._writes is None else absolute(self._writes),
            stage=stage,
            there={path.name: _content(path) for path in task.writes if os.path.lexists(path)},
        )

    def _looks(self, path: str) -> str:
        if not os.path.isdir(path):  # noqa: PTH112
            return looks(path)
        if path not in self._folders:
            self._folders[path] = looks(path)
        return self._folders[path]

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def send(self, seat: Any, missing: Sequence[str]) -> Generator[Any, Any, None]:
        """Send what a seat lacks; yields each call of it.

        Raises:
            OSError: A file cannot be read.
        """
        for read in missing:
            files = list(files_below(read))
            if self._task.beside:
                files += [absolute(path) for path in imported(self._task.beside)(Path(read))]
            for path in dict.fromkeys(files):
                with Path(path).open("rb") as file:
                    first = True
                    while (chunk := file.read(CHUNK)) or first:
                        yield seat.receive.remote(read, path, self._put(chunk), first)
                        first = False
            yield seat.keep.remote(read, self.order.reads[read])

    def fetch(self, seat: Any, results: Mapping[str, int]) -> Generator[Any, Any, None]:
        """Fetch what a seat made; yields each call of it and is sent its answer.

        Raises:
            OSError: The disk is full or refuses.
        """
        assert self._stage is not None or not results
        for name, size in results.items():
            assert self._stage is not None
            with self._stage.path(name).open("wb") as file:
                while file.tell() < size:
                    chunk = yield seat.read.remote(name, file.tell())
                    if not chunk:
                        raise OSError(f"'{name}' ended early")
                    file.write(chunk)

    def unpack(self, finished: Finished, results: Mapping[str, int]) -> Finished:
        """Put results in place, and tell the end with this machine's names for files."""
        task = self._task
        given = {absolute(path): str(path) for path in (*task.reads, *task.writes)}
        given |= {absolute(path.parent): str(path.parent) for path in (*task.reads, *task.writes)}
        given.pop("/", None)
        told = {name: renamed(getattr(finished, name), given.items()) for name in ("result", "reason", "hint")}
        finished = replace(finished, task=task, **told)
        if self._stage is not None and finished.status == Status.DONE:
            order = [path.name for path in task.writes]
            # What is not expected is data for what is: it comes first, so that nobody sees the one without the other.
            names = sorted(results, key=lambda name: order.index(name) if name in order else -1)
            try:
                self._stage.publish(names, force=bool(self.order.there))
            except ModelkitError as error:
                failed = {"reason": error.message, "hint": error.hint, "exit_code": error.exit_code}
                return Finished(task, Status.FAILED, seconds=finished.seconds, **failed)  # type: ignore[arg-type]
        return finished


def _content(path: Path) -> bytes:
    """A file's content where it may be read by a task: reports are, artifacts are not."""
    if path.suffix == ".json" and path.is_file() and path.stat().st_size <= _READABLE:
        return path.read_bytes()
    return b""
