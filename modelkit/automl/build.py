"""What a worker does at the end: fitted members become one verified ONNX file, judged on rows set apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.automl.artifact import to_onnx
from modelkit.automl.blend import Blend
from modelkit.automl.losses import scores
from modelkit.automl.member import Member, fit_member
from modelkit.automl.picture import confidence, values
from modelkit.automl.problem import Problem
from modelkit.automl.trial import keep, kept, problem_in
from modelkit.automl.verify import TOLERANCE, computed, disagreement, probes
from modelkit.errors import ModelError
from modelkit.progress import Progress
from modelkit.runtime import make_session

ENTRY = "modelkit.automl.build:build"
HELD_OUT = "held_out.pickle"


def build(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Write a blend as ONNX, verify it, and judge it.

    Args:
        payload: ``folder``; ``problem``, the file of the one that the members are fitted on; ``members``: family,
            params, rounds, and the file ``out`` of each, which is fitted where it is not there; ``weights``,
            ``temperature``, ``favour``; ``out``, the path; ``judge``: whether to compute
            figures on the rows set apart.
        progress: Told what is done.

    Returns:
        ``path``, ``bytes``, ``latency_ms`` of one row, ``gap`` (largest difference to the Python models), ``rows``
        that were compared, ``dropped`` members (numbers in the list) that did not agree, ``scores`` on the rows set
        apart and a ``picture`` of how right it is there, ``seconds``.

    Raises:
        ModelError: No member agrees.
    """
    folder = str(payload["folder"])
    problem, held = problem_in(folder, payload["problem"]), problem_in(folder, HELD_OUT)
    began = time.monotonic()
    members = [_member(folder, problem, spec) for spec in payload["members"]]
    weights = [float(weight) for weight in payload["weights"]]
    progress("verifying", 0, 1)
    blend = _blend(members, weights, payload)
    content, gap, rows, good = _verified(blend, problem, held)
    dropped: list[int] = []
    if not good:
        dropped = [number for number, member in enumerate(members) if not _agrees(member, problem, held)]
        kept_ones = [number for number in range(len(members)) if number not in dropped]
        if not kept_ones or not dropped:
            raise ModelError(f"onnxruntime computes something else than the models do (by {gap:.2g})")
        share = sum(weights[number] for number in kept_ones)
        blend = _blend([members[n] for n in kept_ones], [weights[n] / share for n in kept_ones], payload)
        content, gap, rows, good = _verified(blend, problem, held)
        if not good:
            raise ModelError(f"onnxruntime computes something else than the models do (by {gap:.2g})")
    Path(payload["out"]).write_bytes(content)
    result: dict[str, Any] = {
        "path": payload["out"],
        "bytes": len(content),
        "gap": gap,
        "rows": rows,
        "dropped": dropped,
        "scores": None,
        "picture": None,
    }
    result["latency_ms"] = latency(content, problem)
    if payload["judge"]:
        progress("judging", 0, 1)
        found, labels = computed(content, held.frame.columns(), held.is_classes)
        numbers = None
        if labels is not None:
            place = {value: number for number, value in enumerate(problem.classes.tolist())}
            numbers = np.array([place[value] for value in labels.tolist()], np.int64)
        result["scores"] = scores(held.y, found, numbers, held.weight)
        result["picture"] = values(held.y, found[:, 0]) if numbers is None else confidence(held.y, found, numbers)
    result["seconds"] = time.monotonic() - began
    return result


def _member(folder: str, problem: Problem, spec: Mapping[str, Any]) -> Member:
    path = Path(folder) / spec["out"]
    if path.exists():
        found: Member = kept(path)
        return found
    made = fit_member(spec["family"], spec["params"], problem, spec["rounds"])
    keep(path, made)
    return made


def _blend(members: list[Member], weights: list[float], payload: Mapping[str, Any]) -> Blend:
    favour = payload["favour"]
    temperature = float(payload["temperature"])
    return Blend(tuple(members), tuple(weights), temperature, None if favour is None else tuple(favour))


def _verified(blend: Blend, problem: Problem, held: Problem) -> tuple[bytes, float, int, bool]:
    """The file's bytes, the largest difference, how many rows were compared, and whether that is good."""
    model = to_onnx(blend, problem)
    content = model.SerializeToString(deterministic=True)
    odd = probes(model, problem)
    tables = (problem.frame.columns(), held.frame.columns(), odd)
    found = [disagreement(content, blend, problem, columns) for columns in tables]
    gap = max(gap for gap, _ in found)
    rows = problem.rows + held.rows + len(next(iter(odd.values())))
    return content, gap, rows, gap <= TOLERANCE and not any(wrong for _, wrong in found)


def _agrees(member: Member, problem: Problem, held: Problem) -> bool:
    try:
        return _verified(Blend((member,), (1.0,)), problem, held)[3]
    except ModelError:
        return False


def latency(content: bytes, problem: Problem, seconds: float = 0.1) -> float:
    """Median time of one row in onnxruntime with one thread, in milliseconds."""
    session = make_session(content)
    columns = problem.take(np.arange(1)).frame.columns()
    names = [each.name for each in session.get_inputs()]
    feeds = dict(zip(names, columns.values(), strict=False))
    feeds = {key: value for key, value in feeds.items() if key in names}
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        at = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - at)
    return float(np.median(times[1:])) * 1000
