"""A runner without processes, for tests of what is built on runners."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator

from modelkit.jobs.protocol import Event, Finished, Progressed, Started, Status, Task
from modelkit.jobs.worker import do


class InlineRunner:
    """Does tasks one after another in this process."""

    def __init__(self, workers: int = 1, **more: object) -> None:
        pass

    def __enter__(self) -> InlineRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        for given in tasks:
            task = pickle.loads(pickle.dumps(given))  # another process would get a copy
            told: list[Event] = [Started(task, 0)]

            def progress(
                stage: str, done: float, total: float, *, task: Task = task, told: list[Event] = told
            ) -> None:
                told.append(Progressed(task, stage, done, total))

            match do(task.entry, task.payload, progress):
                case ("done", result):
                    told.append(
                        Finished(task, Status.DONE, pickle.loads(pickle.dumps(result)), worker_pid=os.getpid())
                    )
                case ("failed", _, reason, hint, code):
                    told.append(Finished(task, Status.FAILED, reason=reason, hint=hint, exit_code=code))
            yield from told
