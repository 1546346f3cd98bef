"""The report of a search as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.config.resolve import Resolved
from modelkit.files import file_record
from modelkit.measure.machine import machine_facts
from modelkit.nas.config import NasConfig
from modelkit.nas.outcome import Chosen, baseline_of, volume
from modelkit.nas.run import Run
from modelkit.nas.space import Space
from modelkit.nas.trials import Trial, violation
from modelkit.report.searched import SCHEMA


@dataclass(frozen=True)
class Sources:
    """What a run works on.

    Attributes:
        data: The samples' file.
        test: The file that only figures are from, if there is one.
        model: The saved model that was searched around, if there is one.
        options: The resolved config.
        samples: How many samples serve for what.
        space: What is searched.
        began: ``time.monotonic()`` of the start.
    """

    data: Path
    test: Path | None
    model: Path | None
    options: Resolved[NasConfig]
    samples: Mapping[str, int]
    space: Space
    began: float


def report_of(
    run: Run,
    chosen: Chosen,
    tested: Mapping[int, Mapping[str, Any]],
    artifact: Path,
    name: str,
    sources: Sources,
    interrupted: bool,
) -> dict[str, Any]:
    """Put the report together.

    Args:
        run: The run.
        chosen: What is kept.
        tested: Figures of the Pareto set on the test samples, by number of the trial.
        artifact: The best model's file, where it lies now.
        name: What it will be called.
        sources: What the run works on.
        interrupted: Whether the run was ended before its time.
    """
    config, best = sources.options.value, chosen.best
    everything = [*run.search.trials, *run.extra]
    done = [trial for trial in [*run.search.done(), *run.extra] if trial.is_done]
    space = sources.space
    return {
        "schema": SCHEMA,
        "command": "nas",
        "status": "interrupted" if interrupted else "done",
        "metric": tested[best.number]["metric"],
        "artifact": {**file_record(artifact), "name": name},
        "best": {**_facts(best), "test": _test(tested[best.number]), "document": dict(best.document)},
        "pareto": [
            {
                "file": f"{number:02d}.onnx",
                **_facts(trial),
                "test": _test(tested[trial.number]),
                "best": trial is best,
                "knee": trial is chosen.knee,
                "document": dict(trial.document),
            }
            for number, trial in enumerate(chosen.pareto, 1)
        ],
        "hypervolume": volume(chosen.pareto, done, config),
        "baseline": baseline_of(run),
        "objectives": list(config.objectives),
        "strategy": config.strategy,
        "space": {
            "hash": space.hash,
            "size": space.size,
            "variables": [[v.name, list(v.values)] for v in space.variables],
        },
        "counts": dict(sorted(Counter(trial.status for trial in everything).items())),
        "epochs": run.spent,
        "trials": [_trial(trial, config) for trial in everything],
        "samples": dict(sources.samples),
        "seconds": round(run.seconds, 2),
        "data": _file(sources.data),
        "test": None if sources.test is None else _file(sources.test),
        "model": None if sources.model is None else _file(sources.model),
        "notes": _notes(run, interrupted),
        "config": config.model_dump(mode="json"),
        "origins": dict(sources.options.origins),
        "seed": config.seed,
        "machine": machine_facts(),
    }


def _file(path: Path) -> dict[str, Any]:
    return file_record(path) if path.is_file() else {"name": path.name}


def _facts(trial: Trial) -> dict[str, Any]:
    figures = trial.figures
    return {
        "trial": trial.number,
        "source": trial.source,
        "epochs": trial.epochs,
        "quality": figures["quality"],
        "latency_ms": figures["latency_ms"],
        "bytes": figures["bytes"],
        "macs": figures["macs"],
        "parameters": figures["parameters"],
    }


def _test(measured: Mapping[str, Any]) -> dict[str, float]:
    return dict(measured["scores"])


def _trial(trial: Trial, config: NasConfig) -> dict[str, Any]:
    figures = trial.figures
    inside = trial.is_done and violation(trial, config.limits) == 0
    return {
        "trial": trial.number,
        "source": trial.source,
        "status": trial.status,
        "reason": trial.reason,
        "epochs": trial.epochs,
        "quality": figures.get("quality"),
        "latency_ms": figures.get("latency_ms"),
        "bytes": figures.get("bytes"),
        "macs": figures.get("macs", trial.macs),
        "parameters": figures.get("parameters", trial.parameters),
        "inside": inside,
        "seconds": round(trial.seconds, 3),
        "ended": round(trial.ended, 2),
        "document": dict(trial.document),
    }


def _notes(run: Run, interrupted: bool) -> list[str]:
    found = []
    if interrupted:
        found.append("the run was ended before its time; --resume goes on with it")
    if run.search.strangers:
        found.append(f"{len(run.search.strangers)} trials of other machines guided the search; their files are there")
    failed = [trial for trial in run.search.trials if trial.reason]
    if failed:
        found.append(f"{len(failed)} trials failed; the first: {failed[0].reason}")
    return found
