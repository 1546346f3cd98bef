"""Does the steps of a recipe one after the other, or takes from the cache what an earlier run did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelkit.errors import BudgetError, ModelError, ModelkitError, ResourceError
from modelkit.measure.machine import machine_facts
from modelkit.progress import Progress
from modelkit.recipe.cache import MODEL, Cache, Entry, external_of, key_of, model_hash
from modelkit.recipe.inputs import Inputs, Step, check_options, named
from modelkit.report.report import Report
from modelkit.report.summary import DONE, MISSED
from modelkit.transform.commands import maker_of
from modelkit.transform.pipeline import transform
from modelkit.version import VERSION

SKIPPED = "skipped"


@dataclass
class Done:
    """What came of a step.

    Attributes:
        step: The step.
        status: "done", "skipped" (it had nothing to do) or "budget not met" (its own).
        given: Hash of the model that it worked on.
        reason: Why it was skipped, or what it missed.
        path: What it made; None where it made nothing.
        key: Its key in the cache.
        cached: Whether an earlier run did the work.
        seconds: How long the work took.
        report: Its report as plain values; empty where it was skipped.
    """

    step: Step
    status: str
    given: str
    reason: str = ""
    path: Path | None = None
    key: str = ""
    cached: bool = False
    seconds: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)


class Chain:
    """Does steps in order, each on what the last one made.

    Args:
        original: The ONNX file to begin with.
        inputs: The checked recipe.
        cache: Where to look before working and to keep what was made; None for neither.
        work: A folder for what the steps make.
        progress: Told how far the work is.
    """

    def __init__(self, original: Path, inputs: Inputs, cache: Cache | None, work: Path, progress: Progress) -> None:
        self._original, self._inputs, self._cache, self._work = original, inputs, cache, work
        self._progress = progress
        self._checked = False
        self.done: list[Done] = []
        self.notes: list[str] = []

    @property
    def kept(self) -> int:
        """How many steps an interrupted run has in the cache."""
        return 0 if self._cache is None else sum(bool(each.key) for each in self.done)

    def run(self) -> list[Done]:
        """Do all steps; the last is "budget not met" where a step missed its own budget, which ends the chain.

        Raises:
            ModelError: A step that is not optional, or every step, had nothing to do.
            ModelkitError: Whatever else is wrong, with the step's number and name.
        """
        path, external = self._original, self._inputs.loaded.external
        for step in self._inputs.steps:
            found = self._do(step, path, model_hash(path, external))
            self.done.append(found)
            if found.status == MISSED:
                break
            if found.path is not None:
                path, external = found.path, external_of(found.path)
        if all(each.status == SKIPPED for each in self.done):
            reasons = "; ".join(f"{each.step.title}: {each.reason}" for each in self.done)
            raise ModelError(f"no step had anything to do: {reasons}")
        return self.done

    def _do(self, step: Step, path: Path, given: str) -> Done:
        folder = self._work / step.name
        folder.mkdir()
        key = step_key(step, given)
        found = self._cache.fetch(key, folder) if self._cache is not None else None
        if found is not None:
            return Done(step, DONE, given, "", folder / MODEL, key, True, found.seconds, found.report)
        if not self._checked:
            check_options(self._inputs.steps[step.number :], self._original)
            self._checked = True
        began = time.monotonic()
        try:
            report = transform(step.on(path, folder / MODEL), maker_of(step.job), self._telling(step))
        except BudgetError as error:
            assert isinstance(error.report, Report)
            seconds = time.monotonic() - began
            return Done(step, MISSED, given, error.message, seconds=seconds, report=error.report.to_dict())
        except ModelkitError as error:
            if step.optional and isinstance(error, ModelError):
                return Done(step, SKIPPED, given, error.message, seconds=time.monotonic() - began)
            raise named(error, step) from error.__cause__
        entry = Entry(report.to_dict(), round(time.monotonic() - began, 3))
        self._keep(key, folder, entry)
        return Done(step, DONE, given, "", folder / MODEL, key, False, entry.seconds, entry.report)

    def _keep(self, key: str, folder: Path, entry: Entry) -> None:
        """Put what was made into the cache; a run goes on without."""
        if self._cache is None:
            return
        try:
            self._cache.store(key, folder, entry)
        except ResourceError as error:
            self._cache = None
            self.notes.append(f"nothing more was kept for later runs: {error.message}")

    def _telling(self, step: Step) -> Progress:
        return telling(self._progress, f"{step.number}/{len(self._inputs.steps)} {step.command}")


def telling(progress: Progress, title: str) -> Progress:
    """A listener that says which step it is about."""

    def tell(stage: str, done: float, total: float) -> None:
        progress(f"{title}: {stage}", done, total)

    return tell


def step_key(step: Step, given: str) -> str:
    """The key of what a step makes: all that it depends on.

    Args:
        step: The step.
        given: Hash of the model that it works on.
    """
    job, machine = step.job, machine_facts()
    return key_of(
        {
            "version": VERSION,
            "model": given,
            "command": step.command,
            "config": job.options.value.model_dump(mode="json"),
            "data": step.hashes,
            "apart": vars(job.apart) if job.apart is not None else None,
            # What is fastest is chosen by measuring it.
            "machine": {name: machine[name] for name in ("cpu", "features", "int8", "versions")},
        }
    )


def last_of(done: Sequence[Done]) -> Done | None:
    """The last step that made something; None where there is none."""
    return next((each for each in reversed(done) if each.path is not None), None)
