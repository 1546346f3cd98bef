"""Runs tasks on a Ray cluster: a seat for each task at a time, retries when nodes die, files sent where they must."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from modelkit.errors import ModelkitError, ResourceError, UsageError
from modelkit.jobs.connect import connected
from modelkit.jobs.parcel import Parcel
from modelkit.jobs.protocol import Event, Finished, Progressed, Started, Status, Task
from modelkit.jobs.room import Shape, places, room_error
from modelkit.jobs.seat import Seat
from modelkit.staging import shown
from modelkit.version import VERSION

ATTEMPTS = 3  # times that a task is begun, where the nodes that do it go away
_STARTS = 3  # times in a row that each seat may be lost without beginning anything
_STALLED = 60.0  # seconds to wait for a node where none is left that has room
_TICK = 1.0  # seconds between looks at the cluster
_GOODBYE = 5.0  # seconds for seats to clean up

Steps = Generator[Any, Any, None]


@dataclass
class _Todo:
    """A task that waits or is being done.

    Attributes:
        task: The task.
        begun: How often it was begun.
        told: Whether its start was told.
    """

    task: Task
    begun: int = 0
    told: bool = False


@dataclass
class _Chair:
    """A seat as this side knows it.

    Attributes:
        number: Which, from 0.
        shape: What it has of the cluster.
        actor: Ray's handle of the seat.
        call: Answer that is waited for; None while there is nothing to do.
        host: Its node; empty until it has answered.
        todo: What it does.
        steps: What is being done, as a generator that yields calls and is sent their answers.
    """

    number: int
    shape: Shape
    actor: Any
    call: Any
    host: str = ""
    todo: _Todo | None = None
    steps: Steps | None = None


class ClusterRunner:
    """The runner of a Ray cluster (see ``modelkit.jobs.protocol.Runner``).

    Limits, crashes and memory are seen to on the nodes as on a single machine, see ``seat.Seat``. Where a node goes
    away, its task is begun anew elsewhere, ``ATTEMPTS`` times in all; what the task itself does wrong is reported.

    Args:
        on: ``ray`` for a local Ray that is started for this run, or ``ray://HOST:PORT``.
        workers: How many tasks run at a time; None for as many as the cluster has room for.
        most: How many tasks there are at most.
        warm: Modules that a worker imports before its first task.

    Raises:
        UsageError: Ray is not installed; the nodes have another version of modelkit, or none has room (in ``run``).
        ResourceError: The cluster cannot be reached, or goes away (in ``run``).
    """

    def __init__(self, on: str, workers: int | None = None, *, most: int = 1024, warm: Sequence[str] = ()) -> None:
        self._on, self._workers, self._most, self._warm = on, workers, most, tuple(warm)
        self._stack = ExitStack()
        self._ray: ModuleType | None = None
        self._seat: Any = None
        self._chairs: list[_Chair] = []
        self._waiting: deque[_Todo] = deque()
        self._events: deque[Event] = deque()
        self._folders: dict[str, str] = {}  # how those that are read look
        self._lost_in_a_row = 0
        self._stalled_at: float | None = None

    def __enter__(self) -> ClusterRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            for chair in self._chairs:
                if chair.steps is not None:
                    chair.steps.close()
            self._close(self._chairs)
        finally:
            self._chairs = []
            self._stack.close()

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        """Run tasks; see ``Runner.run``."""
        try:
            yield from self._run(tasks)
        except Exception as error:
            if self._ray is None or not isinstance(error, ConnectionError | self._ray.exceptions.RayError):
                raise
            raise ResourceError(
                f"the Ray cluster went away: {_told(error)}", "what is finished is kept: --resume goes on from there"
            ) from error

    def _run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        self._forget()
        queue = iter(tasks)
        more = True
        while True:
            if more and not self._waiting and (self._free() or not self._chairs):
                task = next(queue, None)
                more = task is not None
                if task is not None:
                    self._waiting.append(_Todo(task))
            if self._waiting and self._seat_next():
                continue
            while self._events:
                yield self._events.popleft()
            if not (more or self._waiting or any(chair.todo for chair in self._chairs)):
                return
            self._wait()

    def _forget(self) -> None:
        """Give up what a run left undone that was left before its end."""
        self._waiting.clear()
        self._events.clear()
        for chair in self._chairs:
            if chair.steps is not None:
                chair.steps.close()
                self._close([chair])
                self._chairs[chair.number] = self._open(chair.number, chair.shape)

    # --- seats ------------------------------------------------------------------------------------------------

    def _free(self) -> _Chair | None:
        return next((chair for chair in self._chairs if chair.call is None), None)

    def _seat_next(self) -> bool:
        """Give a task that waits to a free seat; tells whether there was one."""
        todo = self._waiting[0]
        shape = Shape.of(todo.task)
        if not self._chairs:
            self._open_all(shape)
        chair = self._free()
        if chair is None:
            return False
        if chair.shape != shape:
            self._close([chair])
            self._chairs[chair.number] = self._open(chair.number, shape)
            return False
        self._waiting.popleft()
        todo.begun += 1
        chair.todo, chair.steps = todo, self._do(chair, todo)
        self._advance(chair, None)
        return True

    def _open_all(self, shape: Shape) -> None:
        if self._ray is None:
            cpus = shape.cpus * (self._workers or 1)
            self._ray = self._stack.enter_context(connected(self._on, cpus))
            self._seat = self._ray.remote(Seat)
        nodes = self._ray.nodes()
        room = places(shape, nodes)
        if room == 0:
            raise room_error(shape, nodes)
        for number in range(min(self._workers or room, self._most)):
            self._chairs.append(self._open(number, shape))

    def _open(self, number: int, shape: Shape) -> _Chair:
        # A lost seat is opened anew here, so that its task can tell. Spread: each model is timed with little noise.
        options = {"max_restarts": 0, "scheduling_strategy": "SPREAD", **shape.options()}
        actor = self._seat.options(**options).remote(self._warm, shape.threads)
        return _Chair(number, shape, actor, actor.hello.remote())

    def _close(self, chairs: Sequence[_Chair]) -> None:
        """Let seats clean up, and end them in any case."""
        if self._ray is None:
            return
        with suppress(Exception):  # whatever is wrong with the cluster now, there is nothing left to do
            calls = [chair.actor.close.remote() for chair in chairs if chair.host]
            if calls:
                self._ray.wait(calls, num_returns=len(calls), timeout=_GOODBYE)
        for chair in chairs:
            with suppress(Exception):
                self._ray.kill(chair.actor)

    # --- what happens -----------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for one answer, and do what follows from it."""
        assert self._ray is not None
        calls = {chair.call: chair for chair in self._chairs if chair.call is not None}
        ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=_TICK)
        for call in ready:
            self._answered(calls[call])
        self._see_to_room()

    def _answered(self, chair: _Chair) -> None:
        assert self._ray is not None
        call, chair.call = chair.call, None
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:  # the seat itself failed, on a node that is there
            self._lost(chair, error.cause if error.cause is not None else error)
        except self._ray.exceptions.RayError as error:
            self._lost(chair, error)
        else:
            if chair.steps is not None:
                self._advance(chair, answer)
            else:
                self._welcome(chair, answer)

    def _welcome(self, chair: _Chair, facts: dict[str, str]) -> None:
        chair.host = facts["host"]
        if facts["modelkit"] != VERSION:
            raise UsageError(
                f"the node {shown(chair.host)} has modelkit {shown(facts['modelkit'])}, this is {VERSION}",
                "install the same version here and on all nodes",
            )

    def _advance(self, chair: _Chair, answer: Any) -> None:
        """Send an answer to what waits for it."""
        assert chair.steps is not None and chair.todo is not None
        assert self._ray is not None
        try:
            chair.call = chair.steps.send(answer)
            return
        except self._ray.exceptions.RayError as error:
            self._lost(chair, error)
            return
        except StopIteration:
            pass
        except ModelkitError as error:
            self._fail(chair.todo, error)
        except OSError as error:
            self._fail(chair.todo, ResourceError(f"a file cannot be sent: {error}"))
        chair.steps = chair.todo = None

    def _fail(self, todo: _Todo, error: ModelkitError) -> None:
        self._end(
            todo,
            Finished(todo.task, Status.FAILED, reason=error.message, hint=error.hint, exit_code=error.exit_code),
        )

    def _end(self, todo: _Todo, finished: Finished) -> None:
        if not todo.told:
            self._events.append(Started(todo.task, 0))
        self._events.append(finished)

    def _do(self, chair: _Chair, todo: _Todo) -> Steps:
        """Do a task on a seat: yields calls and is sent their answers."""
        assert self._ray is not None
        task = todo.task
        with Parcel(task, self._ray.put, self._folders) as parcel:
            missing = yield chair.actor.begin.remote(parcel.order)
            if missing:
                yield from parcel.send(chair.actor, missing)
                yield chair.actor.begin.remote(parcel.order, send=False)
            while True:
                kind, *told = yield chair.actor.listen.remote()
                if kind == "started":
                    self._begun(chair, todo)
                elif kind == "progress":
                    self._events.append(Progressed(task, *told))
                elif kind == "finished":
                    break
            finished, staged, results = told
            if not staged:
                yield from parcel.fetch(chair.actor, results)
            self._end(todo, parcel.unpack(finished, results))

    def _begun(self, chair: _Chair, todo: _Todo) -> None:
        self._lost_in_a_row = 0
        if not todo.told:
            todo.told = True
            self._events.append(Started(todo.task, chair.number))

    # --- what goes wrong --------------------------------------------------------------------------------------

    def _lost(self, chair: _Chair, error: BaseException) -> None:
        """A seat is gone: its task is begun anew elsewhere, and another seat is opened for it."""
        assert self._ray is not None
        todo, where = chair.todo, f"the node {shown(chair.host)}" if chair.host else "a node"
        if chair.steps is not None:
            chair.steps.close()
        why = _told(error)
        if "No module named 'modelkit" in str(error):
            raise UsageError(
                f"a node of the cluster has no modelkit, or another version than {VERSION}",
                "install the same version here and on all nodes",
            )
        self._lost_in_a_row += 1
        if self._lost_in_a_row > _STARTS * len(self._chairs):
            raise ResourceError(f"workers on the cluster do not start: {why}", "see Ray's logs on its nodes")
        if todo is not None and todo.begun >= ATTEMPTS:
            reason = f"its node failed {todo.begun} times: {why}"
            hint = "a model that takes all of a node's memory ends the node's work: --memory limits it"
            self._end(todo, Finished(todo.task, Status.CRASHED, reason=reason, hint=hint, exit_code=5))
        elif todo is not None:
            self._waiting.appendleft(todo)
            if todo.told:
                self._events.append(Progressed(todo.task, f"again, {where} failed", 0, 1))
        with suppress(Exception):
            self._ray.kill(chair.actor)
        self._chairs[chair.number] = self._open(chair.number, chair.shape)

    def _see_to_room(self) -> None:
        """End the run where nobody works and no node is left that has room."""
        assert self._ray is not None
        if any(chair.host for chair in self._chairs) or not self._chairs:
            self._stalled_at = None
            return
        now = time.monotonic()
        self._stalled_at = self._stalled_at or now
        if now - self._stalled_at > _STALLED:
            nodes = self._ray.nodes()
            if places(self._chairs[0].shape, nodes) == 0:
                raise room_error(self._chairs[0].shape, nodes)
            self._stalled_at = now


def _told(error: BaseException) -> str:
    """What Ray says, in one line; it lists numbers of processes and the like on lines that are indented."""
    lines = [line.strip() for line in str(error).splitlines() if not line[:1].isspace()]
    return shown(" ".join(lines))[:300] or type(error).__name__
