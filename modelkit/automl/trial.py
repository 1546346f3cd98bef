"""What a worker does: one trial on all folds, or one final fit, told by paths and plain values.

Files that pass between a run and its workers lie in a folder of that run alone, and are removed with it.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.automl.folds import Fold
from modelkit.automl.losses import Metric, loss
from modelkit.automl.member import Member, fit_member
from modelkit.automl.problem import Problem
from modelkit.progress import Progress

ENTRY = "modelkit.automl.trial:evaluate"
FIT_ENTRY = "modelkit.automl.trial:fit"
PROBLEM, FOLDS, FRESH_FOLDS = "problem.pickle", "folds.pickle", "fresh_folds.pickle"


def keep(path: Path, value: object) -> None:
    """Write a value for another process of this run."""
    part = path.with_suffix(".part")
    part.write_bytes(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
    part.replace(path)


def kept(path: Path) -> Any:
    """Read what another process of this run wrote."""
    return pickle.loads(path.read_bytes())  # noqa: S301 - written by this run, into a folder that only it can write


@lru_cache(maxsize=3)
def problem_in(folder: str, name: str = PROBLEM) -> Problem:
    """The problem that a run works on."""
    found: Problem = kept(Path(folder) / name)
    return found


@lru_cache(maxsize=2)
def _folds_in(folder: str, name: str) -> list[Fold]:
    found: list[Fold] = kept(Path(folder) / name)
    return found


def evaluate(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Fit on each fold and predict the rest of it; stop early where the first folds are hopeless.

    Args:
        payload: ``folder``, ``folds`` (file), ``number``, ``family``, ``params``, ``metric``, ``race`` (see
            `hopeless`), ``until``:
            ``time.monotonic()`` by which it must end, or None; ``out``: where predictions go.
        progress: Told after each fold.

    Returns:
        ``losses`` of the folds, ``loss`` of all, ``dropped`` after how many folds (0: it was not) and whether because
        it was ``late``, ``seconds`` of all and of one ``fit``, ``rounds``. Predictions for rows out of their fold,
        [R, N, K] for R repetitions, are kept in ``out``: not their mean, which would be of more models than are
        fitted in the end, and flatter those that vary.
    """
    folder = Path(payload["folder"])
    problem, folds = problem_in(str(folder)), _folds_in(str(folder), payload["folds"])
    metric = Metric(payload["metric"])
    began = time.monotonic()
    repeats = 1 + max(fold.repeat for fold in folds)
    found, there = np.zeros((repeats, problem.rows, problem.width)), np.zeros(problem.rows, bool)
    losses: list[float] = []
    rounds: list[int] = []
    fit_seconds = 0.0
    for number, fold in enumerate(folds):
        at = time.monotonic()
        member = fit_member(payload["family"], payload["params"], problem.take(fold.fit))
        fit_seconds = max(fit_seconds, time.monotonic() - at)
        valid = problem.take(fold.valid)
        predicted = member.predict(valid.frame.columns())
        if not np.isfinite(predicted).all():
            raise FloatingPointError("its predictions are not finite")
        found[fold.repeat, fold.valid] = predicted
        there[fold.valid] = True
        losses.append(loss(metric, valid.y, predicted, valid.weight))
        rounds += [member.rounds] if member.rounds is not None else []
        progress(f"trial {payload['number']}", number + 1, len(folds))
        late = _is_late(payload["until"], began, number + 1, len(folds))
        if late or hopeless(losses, payload["race"], len(folds)):
            return {
                "dropped": number + 1,
                "late": late,
                "losses": losses,
                "loss": float(np.mean(losses)),
                "fit": fit_seconds,
                "seconds": time.monotonic() - began,
                "rounds": None,
            }
    np.save(payload["out"], found)
    known = problem.take(np.tile(np.flatnonzero(there), repeats))
    return {
        "dropped": 0,
        "late": False,
        "losses": losses,
        "loss": loss(metric, known.y, found[:, there].reshape(-1, problem.width), known.weight),
        "fit": fit_seconds,
        "seconds": time.monotonic() - began,
        "rounds": round(float(np.mean(rounds)) * 1.1) if rounds else None,
    }


def _is_late(until: float | None, began: float, done: int, folds: int) -> bool:
    """Whether another fold like those before would end too late."""
    if until is None or done >= folds:
        return False
    now = time.monotonic()
    return now + (now - began) / done > until


def hopeless(losses: list[float], race: Mapping[str, Any] | None, folds: int) -> bool:
    """Whether a trial is so far behind the best one on the same folds that the rest is not worth its time.

    Args:
        losses: Its losses so far.
        race: ``losses`` of the best trial on all folds, and ``slack``: how much worse a trial may be.
        folds: How many folds there are.
    """
    if race is None or len(losses) >= folds or len(losses) < min(3, folds - 1):
        return False
    mine, best = np.array(losses), np.array(race["losses"][: len(losses)])
    noise = max(float(np.std(race["losses"])), float(mine.std())) / len(losses) ** 0.5
    return bool(mine.mean() > best.mean() + race["slack"] + noise)


def fit(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Fit a member on all rows of a problem and keep it as ``OUT``.

    Args:
        payload: ``folder``, ``problem`` (file), ``family``, ``params``, ``rounds``, ``out`` (file).
        progress: Not told anything.
    """
    began = time.monotonic()
    problem = problem_in(payload["folder"], payload["problem"])
    member: Member = fit_member(payload["family"], payload["params"], problem, payload["rounds"])
    keep(Path(payload["folder"]) / payload["out"], member)
    return {"seconds": time.monotonic() - began}
