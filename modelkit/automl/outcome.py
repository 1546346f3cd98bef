"""The report of a run: what it learned from, what it tried, what it chose and how good that is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelkit.automl.clock import Clock
from modelkit.automl.config import AutomlConfig
from modelkit.automl.prepare import Prepared
from modelkit.automl.search import Trial
from modelkit.config.resolve import Resolved
from modelkit.files import file_record
from modelkit.measure.machine import machine_facts

if TYPE_CHECKING:
    from modelkit.automl.made import Outcome
    from modelkit.automl.run import Run

SCHEMA = "modelkit.automl/1"


@dataclass(frozen=True)
class Sources:
    """What a run works on.

    Attributes:
        data: The table's file.
        test: The file that only figures are from, if there is one.
        rows: Rows of the table as it was read.
        prepared: The problem in it.
        options: The resolved config.
        baseline: How the model that is run today was judged, if there is one.
    """

    data: Path
    test: Path | None
    rows: int
    prepared: Prepared
    options: Resolved[AutomlConfig]
    baseline: dict[str, Any] | None = None


def report_of(
    outcome: Outcome, run: Run, sources: Sources, clock: Clock, artifact: Path, name: str
) -> dict[str, Any]:
    """Put the report of an artifact together; plain values for JSON.

    Args:
        outcome: How the artifact came about.
        run: The run.
        sources: What it works on.
        clock: Its time.
        artifact: The ONNX file, where it lies now.
        name: What it will be called.
    """
    problem = sources.prepared.problem
    built = outcome.built
    notes = [*sources.prepared.notes, *outcome.notes]
    if outcome.final and outcome.choice.single:
        notes.append("one model is as good as the ensemble within the tolerance, so it was taken alone")
    if outcome.refitted and sources.test is None:
        notes.append(
            "the figures are of models fitted without the rows set apart; the artifact was then fitted on all rows"
        )
    return {
        "schema": SCHEMA,
        "command": "automl",
        "status": "done" if outcome.final else "searching",
        "task": problem.task.value,
        "target": problem.target,
        "classes": problem.classes.tolist(),
        "metric": run.metric.value,
        "artifact": {**file_record(artifact), "name": name, "latency_ms": built["latency_ms"]},
        "scores": built["scores"],
        "baseline": sources.baseline,
        "members": [_member(outcome.trials[number], weight) for number, weight in outcome.choice.weights.items()],
        "temperature": outcome.temperature,
        "favour": outcome.favour,
        "loss_out_of_fold": outcome.choice.loss,
        "verified": {"rows": built["rows"], "largest_difference": built["gap"]},
        "leaderboard": _board(outcome),
        "rows": {**run.rows, "read": sources.rows},
        "folds": run.scheme,
        "seconds": round(clock.spent, 2),
        "data": file_record(sources.data),
        "test": None if sources.test is None else file_record(sources.test),
        "columns": [asdict(decision) for decision in sources.prepared.decisions],
        "notes": notes,
        "config": sources.options.value.model_dump(mode="json"),
        "origins": dict(sources.options.origins),
        "seed": sources.options.value.seed,
        "machine": machine_facts(),
    }


def _member(trial: Trial, weight: float) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "family": trial.family,
        "weight": weight,
        "params": dict(trial.params),
        "rounds": trial.rounds,
        "loss": trial.loss,
    }


def _rank(trial: Trial) -> tuple[object, ...]:
    """Fresh folds before those of the search, done before dropped, then by loss."""
    loss = trial.loss if trial.fresh_loss is None else trial.fresh_loss
    return (trial.fresh_loss is None, not trial.is_done, loss, trial.number)


def _board(outcome: Outcome) -> list[dict[str, Any]]:
    """All trials, the best first."""
    weights = outcome.choice.weights
    order = sorted(outcome.trials, key=_rank)
    return [
        {
            "trial": trial.number,
            "family": trial.family,
            "loss": trial.loss if np.isfinite(trial.loss) else None,
            "error": float(np.std(trial.losses) / len(trial.losses) ** 0.5) if len(trial.losses) > 1 else None,
            "fresh_loss": trial.fresh_loss,
            "status": trial.status,
            "reason": trial.reason,
            "source": trial.source,
            "seconds": round(trial.seconds, 3),
            "weight": weights.get(trial.number),
            "params": dict(trial.params),
        }
        for trial in order
    ]
