"""A runner that does tasks one after the other in this process, so that tests need no new interpreters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.config.resolve import resolve
from modelkit.errors import ModelkitError
from modelkit.jobs.protocol import Event, Finished, Started, Status, Task, imported
from modelkit.nas.config import NasConfig
from modelkit.nas.session import nas
from modelkit.transform.bits import STORE

MLP = {"family": "mlp", "activation": ["relu", "gelu"], "layers": [{"width": {"from": 4, "to": 20, "step": 4}}]}


class Inline:
    """See the top of this file.

    Args:
        before: Called with each task before it is done; may raise.
    """

    def __init__(self, before: Callable[[Task], Finished | None] | None = None) -> None:
        self.before = before
        self.names: list[str] = []

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def run(self, tasks: Iterable[Task]) -> Iterator[Event]:
        for task in tasks:
            yield Started(task, 0)
            early = self.before(task) if self.before else None
            if early is not None:
                yield early
                continue
            self.names.append(task.name)
            try:
                result = imported(task.entry)(task.payload, lambda *_: None)
            except ModelkitError as error:
                yield Finished(task, Status.FAILED, reason=error.message, hint=error.hint)
            else:
                yield Finished(task, Status.DONE, result, seconds=0.1)


def blobs(path: Path, count: int = 160, **more: Any) -> Path:
    """Three classes of points in five dimensions, a little mixed."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    points = rng.normal(size=(count, 5)) + 1.5 * np.eye(5)[labels]
    np.savez(path, x=points.astype(np.float32), labels=labels, **more)
    return path


def search(
    folder: Path,
    data: Path | None = None,
    *,
    model: Path | None = None,
    runner: Any = None,
    force: bool = False,
    resume: bool = False,
    html: bool = False,
    test: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run a small search into ``folder/best.onnx``."""
    given = {"training.epochs": 2, "trials": 6, "warmup": 2, "timing.seconds": 0.001, "seed": 1}
    if model is None:
        given["space"] = MLP
    given |= {name.replace("__", "."): value for name, value in options.items()}
    config = resolve(
        NasConfig, flags={name: (value, f"--{name}") for name, value in given.items() if value is not None}
    )
    samples = data if data is not None else blobs(folder / "data.npz")
    return nas(
        samples,
        folder / "best.onnx",
        config,
        model=model,
        test=test,
        force=force,
        html=html,
        resume=resume,
        runner=runner or Inline(),
        store=STORE,
    )
