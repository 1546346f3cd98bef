"""Runs a command on every model below a folder: each in a worker with limits, each result in the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from modelkit.batch.beside import ENTRY as BESIDE
from modelkit.batch.beside import code_of
from modelkit.batch.facts import facts_of
from modelkit.batch.past import Past, marks_of, relative
from modelkit.batch.plan import Item, Request, check_existing, key_of, plan
from modelkit.files import Staging, write_json
from modelkit.jobs import journal as lines
from modelkit.jobs.cluster import ClusterRunner
from modelkit.jobs.local import LocalRunner
from modelkit.jobs.lock import FolderLock
from modelkit.jobs.protocol import Finished, Progressed, Runner, Started, Status, Task
from modelkit.report import summary as report
from modelkit.report.summary import DONE, Row, Summary
from modelkit.staging import clean_up, write_error
from modelkit.version import VERSION

# Below the folder of results: what this run is, and what it did.
STATE = ".modelkit"


class Listener:
    """Is told what happens; does nothing with it. The command line has one that draws."""

    def begin(self, names: list[str]) -> None:
        """These models were found, in the order of the summary."""

    def event(self, event: Started | Progressed) -> None:
        """A model was begun, or is so far."""

    def row(self, row: Row) -> None:
        """A model ended, or was done before."""


def run(request: Request, listener: Listener | None = None, runner: Runner | None = None) -> Summary:
    """Run a command on every model below a folder.

    A model that fails, crashes, hangs or takes too much memory is a row with its reason; the others go on. With a
    folder of results, ``summary.json`` and ``summary.md`` are written there at the end.

    Args:
        request: What to do.
        listener: Told what happens.
        runner: What runs the tasks; processes of this machine by default.

    Raises:
        UsageError: There is no model, results exist already, or another run works in the folder.
        ResourceError: A folder cannot be read or written, or no worker can be started.
    """
    return _Run(request, listener or Listener()).run(runner)


class _Run:
    def __init__(self, request: Request, listener: Listener) -> None:
        self._request, self._listener = request, listener
        self._items, self._notes = plan(request)
        self._rows: dict[str, Row] = {}
        self._running: dict[str, Item] = {}
        self._journal: lines.Journal | None = None
        self._past: Past | None = None
        self._key = ""
        self._holding: list[int] = []
        self._shared = _shared(request)

    def run(self, runner: Runner | None) -> Summary:
        began = time.monotonic()
        with ExitStack() as stack:
            if self._request.output is not None:
                self._open(self._request.output, stack)
            self._listener.begin([item.name for item in self._items])
            todo = [item for item in self._items if not self._is_done(item)]
            if todo:
                active = runner or self._runner(len(todo))
                stack.callback(self._clean_up)  # after the runner has ended its workers
                for event in stack.enter_context(active).run(self._tasks(todo)):
                    self._take(event)
            found = self._summary(time.monotonic() - began)
            if self._request.output is not None:
                _write(found, self._request.output, html=self._request.html)
        return found

    def _runner(self, most: int) -> Runner:
        """What runs the tasks, at most so many at a time."""
        request = self._request
        if request.on is None:
            threads = None if request.cpus is None else max(1, int(request.cpus))
            workers = min(request.workers or 1, most)
            return LocalRunner(workers, warm=request.warm, holding=self._holding, threads=threads)
        return ClusterRunner(request.on, request.workers, most=most, warm=request.warm)

    def _open(self, output: Path, stack: ExitStack) -> None:
        """Take the folder of results for this run, and see what is in it."""
        state = output / STATE
        if not state.is_dir():
            check_existing(self._items, self._request)
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(output, error) from error
        self._holding = [stack.enter_context(FolderLock(state / "lock", output)).descriptor]
        check_existing(self._items, self._request)
        self._key = key_of(self._request)
        path = state / f"{self._request.command}.jsonl"
        for folder in {output, *(item.output.parent for item in self._items if item.output is not None)}:
            clean_up(folder)
        if self._request.resume:
            self._past = Past(lines.read(path), output, self._key)
        self._journal = stack.enter_context(lines.Journal(path, fresh=not self._request.resume))

    def _is_done(self, item: Item) -> bool:
        """Whether an earlier run did a model, and nothing has changed since."""
        if self._past is None:
            return False
        row = self._past.row(item)
        if row is None:
            row = self._past.orphan(item)
            if row is None:
                return False
            written = [path for path in item.outputs if path.is_file()]
            self._record(item, row, facts_of(item.path, [], written))
        self._finish(row)
        return True

    def _tasks(self, items: list[Item]) -> Iterator[Task]:
        request = self._request
        for item in items:
            force = request.force or (self._past is not None and self._past.wrote(item))
            if self._journal is not None:
                assert request.output is not None
                output = relative(item.output, request.output)
                start = {"event": "start", "model": item.name, "output": output, "key": self._key}
                # Lost in a power cut, it only means that the model is done again.
                self._journal.append({**start, "seen": marks_of(item)}, sync=False)
            self._running[item.name] = item
            yield Task(
                name=item.name,
                entry=request.entry,
                payload={
                    "command": request.command,
                    "model": item.path,
                    "output": item.output,
                    "outputs": item.outputs,
                    "force": force,
                    "arguments": {**request.arguments, **request.aside},
                },
                limits=request.limits,
                cpus=request.cpus or 1,
                gpus=request.gpus,
                reads=(item.path, *self._shared),
                writes=item.outputs,
                beside=BESIDE,
            )

    def _take(self, event: Started | Progressed | Finished) -> None:
        if not isinstance(event, Finished):
            self._listener.event(event)
            return
        item = self._running[event.task.name]
        row = self._row(item, event)
        if event.status not in (Status.DONE, Status.FAILED):
            _tidy(item, self._request.output)
        self._record(item, row, (event.result or {}).get("facts"))
        del self._running[item.name]
        self._finish(row)

    def _row(self, item: Item, event: Finished) -> Row:
        if event.result is None:
            return Row(
                item.name,
                str(event.status),
                reason=event.reason,
                hint=event.hint,
                exit_code=event.exit_code,
                seconds=event.seconds,
            )
        result, top = event.result, self._request.output
        return Row(
            item.name,
            result["status"],
            relative(result["output"], top) if top is not None else None,
            result["figures"],
            reason=result["reason"],
            hint=result["hint"],
            exit_code=0 if result["status"] == DONE else 1,
            seconds=event.seconds,
            page=relative(result.get("page"), top) if top is not None else None,
            document=result["document"],
        )

    def _record(self, item: Item, row: Row, facts: dict[str, Any] | None) -> None:
        """Put the end of a model into the journal."""
        if self._journal is None or self._request.output is None:
            return
        output = relative(item.output, self._request.output)
        assert item.output is not None
        folder = item.output.parent.relative_to(self._request.output)
        facts = facts or {"sha256": None, "external": {}, "files": {}}
        files = {(folder / name).as_posix(): digest for name, digest in facts["files"].items()}
        end = {"event": "end", "model": item.name, "output": output, "key": self._key}
        self._journal.append({**end, **facts, "files": files, "row": row.to_dict()})

    def _finish(self, row: Row) -> None:
        self._rows[row.model] = row
        self._listener.row(row)

    def _clean_up(self) -> None:
        """Remove what ended workers left of models that were not finished."""
        for item in self._running.values():
            _tidy(item, self._request.output)

    def _summary(self, seconds: float) -> Summary:
        notes, fresh = list(self._notes), sum(not row.resumed for row in self._rows.values())
        workers = self._request.workers or 1
        if fresh > 1 and self._request.command != "inspect":
            if self._request.on not in (None, "ray"):
                notes.append("models were timed on nodes of a cluster: times of different models may not compare")
            elif workers > 1:
                notes.append(f"up to {workers} models were timed at once: each may show longer times than alone")
        rows = [self._rows[item.name] for item in self._items]
        return Summary(self._request.command, rows, notes, dict(self._request.config), seconds, VERSION)


def _shared(request: Request) -> list[Path]:
    """Files that every model of a run needs: data, and an architecture's code in the current folder."""
    found = [value for value in request.arguments.values() if isinstance(value, Path)]
    loading = request.arguments.get("loading")
    code = code_of(loading.arch, Path.cwd()) if loading is not None and loading.arch else None
    return found if code is None else [*found, code]


def _tidy(item: Item, top: Path | None) -> None:
    """Remove what an ended worker left of a model: its hidden folder, and folders that were made for nothing."""
    if item.output is None or top is None:
        return
    clean_up(item.output.parent)
    for folder in [item.output.parent, *item.output.parent.parents]:
        if folder == top or not folder.is_relative_to(top):
            break
        with suppress(OSError):
            folder.rmdir()


def _write(found: Summary, output: Path, *, html: bool) -> None:
    """Write the summary's files."""
    with Staging(output) as stage:
        write_json(stage.path("summary.json"), found.to_dict())
        text = report.markdown(found)
        stage.path("summary.md").write_bytes(text.encode("utf-8", "backslashreplace"))
        names = ["summary.json", "summary.md"]
        if html:
            from modelkit.report.html.page import render

            stage.path("index.html").write_bytes(render(found))
            names.append("index.html")
        stage.publish(names, force=True)
