"""The model that someone runs today, judged on the same rows as the new one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.automl.losses import scores
from modelkit.automl.problem import Problem
from modelkit.automl.served import Said, Served
from modelkit.data.frame import Frame
from modelkit.errors import DataError, ModelError
from modelkit.files import file_record, shown


def judge(path: Path, frame: Frame, problem: Problem) -> dict[str, Any]:
    """Judge a model on rows set apart.

    Args:
        path: The ONNX file.
        frame: The rows with all columns of the table, also those that the search leaves out.
        problem: The same rows as a problem.

    Returns:
        ``file``, ``latency_ms`` of one row, ``scores``.

    Raises:
        DataError: The table lacks a column that it takes.
        ModelError: It says something else than classes or numbers of this problem.
    """
    served = Served(path)
    lacking = [name for name in served.kinds if name not in frame.fields]
    if lacking:
        raise DataError(f"{shown(frame.name)} lacks the column '{shown(lacking[0])}' that '{shown(path.name)}' takes")
    if served.matrix is not None:
        frame = frame.only(problem.frame.fields)
    wrong = [n for n, kind in served.kinds.items() if kind.is_string != frame.fields[n].kind.is_string]
    if wrong:
        raise DataError(
            f"'{shown(path.name)}' takes column '{shown(wrong[0])}' as {served.kinds[wrong[0]]}, and "
            f"{shown(frame.name)} has it as {frame.fields[wrong[0]].kind}"
        )
    said = served.say(frame)
    values, numbers = _as_problem(said, served, problem, path.name)
    one = served.feeds(frame.take(np.arange(1)))
    return {
        "file": file_record(path),
        "latency_ms": _latency(served, one),
        "scores": scores(problem.y, values, numbers, problem.weight),
    }


def _as_problem(said: Said, served: Served, problem: Problem, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities in the problem's order and numbers of classes; or predictions."""
    if not problem.is_classes:
        if said.values is None or said.values.shape[1] != 1:
            raise ModelError(f"'{shown(name)}' predicts no single number, as '{shown(problem.target)}' is")
        return said.values, None
    place = {str(value): number for number, value in enumerate(problem.classes.tolist())}
    order = [place.get(str(value), -1) for value in served.classes] or list(range(problem.width))
    values = None
    if said.values is not None:
        if said.values.shape[1] != len(order) or -1 in order or len(order) > problem.width:
            raise ModelError(f"'{shown(name)}' tells other classes apart than those of '{shown(problem.target)}'")
        values = np.zeros((len(said.values), problem.width))
        values[:, order] = said.values
    if said.labels is None:
        if values is None:
            raise ModelError(f"'{shown(name)}' says neither labels nor probabilities")
        return values, values.argmax(axis=1)
    unknown = {str(label) for label in said.labels.tolist()} - set(place)
    if unknown:
        raise ModelError(
            f"'{shown(name)}' says the class '{shown(min(unknown))}', which '{shown(problem.target)}' lacks"
        )
    numbers = np.array([place[str(label)] for label in said.labels.tolist()], np.int64)
    return np.eye(problem.width)[numbers] if values is None else values, numbers


def _latency(served: Served, feeds: dict[str, np.ndarray], seconds: float = 0.1) -> float:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        at = time.perf_counter()
        served.session.run(None, feeds)
        times.append(time.perf_counter() - at)
    return float(np.median(times[1:])) * 1000
