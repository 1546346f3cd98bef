"""Tells what a recipe would do, step by step, and writes nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from modelkit.decision import Decision
from modelkit.errors import ModelError, ModelkitError
from modelkit.progress import Progress, silent
from modelkit.recipe.cache import MODEL, Cache, external_of, model_hash
from modelkit.recipe.inputs import Inputs, Step, named, prepare
from modelkit.recipe.job import RecipeJob
from modelkit.recipe.steps import step_key, telling
from modelkit.report.plan import Plan
from modelkit.transform.commands import maker_of
from modelkit.transform.job import opened
from modelkit.transform.pipeline import plan


def plan_recipe(job: RecipeJob, progress: Progress = silent) -> Plan:
    """Find out what a run of a recipe would do, without writing anything.

    A step after one that is still to be done is planned on the smallest candidate of that one.

    Args:
        job: What would be done.
        progress: Told how far the work is.

    Raises:
        ModelkitError: Whatever ``run_recipe`` would refuse, as far as that can be told before anything is measured.
    """
    with opened(job, progress) as ready, tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        assert isinstance(ready, RecipeJob)
        inputs = prepare(ready)
        entries, decisions = _plan(ready, inputs, Path(folder), progress)
        return Plan(
            model=ready.named.name,
            output=str(ready.output),
            original_bytes=inputs.loaded.size_bytes,
            candidates=[],
            decisions=decisions,
            data={"test": inputs.judge.describe()},
            config=ready.options.value.model_dump(mode="json"),
            origins=dict(ready.options.origins),
            steps=entries,
        )


def _plan(
    job: RecipeJob, inputs: Inputs, work: Path, progress: Progress
) -> tuple[list[dict[str, Any]], list[Decision]]:
    path, external = job.model, inputs.loaded.external
    cache = None if job.cache is None else Cache(job.cache)
    entries, decisions, certain = [], list[Decision](), True
    for step in inputs.steps:
        folder = work / step.name
        folder.mkdir()
        # What follows a step that is still to be done is not known, so neither is its key.
        found = cache.fetch(step_key(step, model_hash(path, external)), folder) if cache and certain else None
        certain = found is not None
        if found is not None:
            made = {"name": found.report["method"], "bytes": found.report["after"]["size"]["file_bytes"]}
            entries.append(_entry(step, [{**made, "reason": ""}], found.report["data"], cached=True))
        else:
            entry, decided = _planned(step, path, folder, telling(progress, step.name))
            entries.append(entry)
            decisions += decided
        if (folder / MODEL).exists():
            path, external = folder / MODEL, external_of(folder / MODEL)
    return entries, decisions


def _planned(step: Step, path: Path, folder: Path, progress: Progress) -> tuple[dict[str, Any], list[Decision]]:
    """The plan of a step on a model; its smallest candidate is put into the folder."""
    job = step.on(path, folder / "planned.onnx")
    try:
        found = plan(job, maker_of(job), progress, keep=folder / MODEL)
    except ModelkitError as error:
        if step.optional and isinstance(error, ModelError):
            return _entry(step, [], {}, reason=f"skipped: {error.message}"), []
        raise named(error, step) from error.__cause__
    numbered = [
        Decision(each.target, each.action, each.reason, {"step": step.number, **each.numbers})
        for each in found.decisions
    ]
    return _entry(step, found.candidates, found.data), numbered


def _entry(
    step: Step, candidates: list[dict[str, Any]], data: dict[str, Any], *, cached: bool = False, reason: str = ""
) -> dict[str, Any]:
    options = step.job.options
    return {
        "number": step.number,
        "command": step.command,
        "cached": cached,
        "reason": reason,
        "candidates": candidates,
        "data": data,
        "config": options.value.model_dump(mode="json"),
        "origins": dict(options.origins),
    }
