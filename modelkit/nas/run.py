"""The course of a run: tasks for workers as the search wants them, what they answer, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.errors import BudgetError, ModelError
from modelkit.jobs.protocol import Event, Finished, Limits, Progressed, Runner, Started, Status, Task
from modelkit.nas import trial as work
from modelkit.nas.config import NasConfig
from modelkit.nas.search import Job, Search
from modelkit.nas.space import key_of
from modelkit.nas.storage import Shared
from modelkit.nas.study import Study, trial_of
from modelkit.nas.trials import Trial, violation
from modelkit.progress import Progress, silent

DEFAULT_TRIALS = 50
BASELINE = 1_000_000
"""Numbers of the trials of a random baseline begin here."""

_ALIKE = 5  # trials that fail in a row at the beginning before the run gives up


@dataclass
class Run:
    """One run.

    Attributes:
        search: What is tried next.
        study: Keeps each trial.
        config: Options.
        payload: What every task is given.
        shared: A database that several machines share; None for none.
        progress: Told how far the run is.
        began: ``time.monotonic()`` of the start.
        extra: Trials of a random baseline.
        spent: Epochs that were begun.
    """

    search: Search
    study: Study
    config: NasConfig
    payload: Mapping[str, Any]
    shared: Shared | None = None
    progress: Progress = silent
    began: float = field(default_factory=time.monotonic)
    extra: list[Trial] = field(default_factory=list)
    spent: int = 0
    _jobs: dict[str, Job] = field(default_factory=dict, init=False)
    _begun: dict[str, float] = field(default_factory=dict, init=False)
    _before: float = field(default=0.0, init=False)

    @property
    def seconds(self) -> float:
        """Seconds of the search, those of earlier runs included."""
        return self._before + time.monotonic() - self.began

    @property
    def budget(self) -> int | None:
        """Epochs in all; None where only the time counts."""
        trials = self.config.trials
        if trials is None and self.config.time is not None:
            return None
        return (trials or DEFAULT_TRIALS) * self.config.training.epochs

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return float("inf") if self.config.time is None else self.config.time - self.seconds

    def remember(self) -> None:
        """Take over what an earlier run found: each trial as it ended, those that were running anew."""
        known: dict[int, Trial] = {}
        for record in self.study.records:
            found = trial_of(record)
            self._before = max(self._before, found.ended)
            if found.number >= BASELINE:
                self.extra = [t for t in self.extra if t.number != found.number]
                self.extra.append(found)
                continue
            trial = known.get(found.number)
            if trial is None:
                trial = known[found.number] = found
                self.search.add(trial)
            else:
                for name in ("status", "epochs", "errors", "figures", "seconds", "ended", "reason"):
                    setattr(trial, name, getattr(found, name))
            if found.status == "running":
                trial.status = "done" if trial.errors else "new"
            else:
                self.search.ended(trial)
        self.extra = [trial for trial in self.extra if trial.is_done]
        self.spent = sum(trial.epochs for trial in known.values())

    def run(self, runner: Runner) -> None:
        """Search until the budget is used up, or nothing is left to try.

        Raises:
            BudgetError: The time is too short for one trial.
            ModelError: No candidate can be trained; says why the first one could not.
        """
        for event in runner.run(self._tasks()):
            self._heard(event)
        if not self.search.done():
            first = next((t for t in self.search.trials if t.reason), None)
            why = f"; the first one: {first.reason}" if first else ""
            raise ModelError(f"none of the {len(self.search.trials)} candidates could be trained{why}")
        if self.config.baseline == "full":
            for event in runner.run(self._baseline()):
                self._heard(event)

    # Tasks

    def _tasks(self) -> Iterator[Task]:
        while not self._is_over():
            self._meet()
            job = self.search.next()
            if job is None:
                return
            if self.budget is not None and self.spent + job.spent > self.budget:
                job.trial.status = "done" if job.trial.errors else "new"
                if not job.trial.errors:
                    self.search.trials.remove(job.trial)
                return
            self.spent += job.spent
            self.study.keep(job.trial)
            yield self._task(job)

    def _is_over(self) -> bool:
        if self.budget is not None and self.spent >= self.budget:
            return True
        took = sorted(trial.seconds for trial in self.search.done())
        return bool(took) and took[len(took) // 2] > self.left

    def _baseline(self) -> Iterator[Task]:
        """As many random trials as the search had full trainings; what is known already is not trained again."""
        epochs = self.config.training.epochs
        known = {t.key: t for t in [*self.search.trials, *self.extra] if t.is_done and t.epochs >= epochs}
        for number in range(max(1, self.spent // epochs)):
            for attempt in range(200):
                rng = np.random.default_rng([self.config.seed, 7919, number, attempt])
                genome = self.search.problem.space.sample(rng)
                looked = self.search.problem.look(genome)
                if not looked.reason:
                    break
            else:
                return
            key = key_of(looked.document)
            if any(t.number == BASELINE + number for t in self.extra):
                continue
            trial = Trial(BASELINE + number, genome, key, looked.document, "baseline", looked.parameters, looked.macs)
            if key in known:
                for name in ("status", "epochs", "errors", "figures"):
                    setattr(trial, name, getattr(known[key], name))
                self.extra.append(trial)
                continue
            self.extra.append(trial)
            yield self._task(Job(trial, epochs, epochs))

    def _task(self, job: Job) -> Task:
        trial = job.trial
        folder = self.study.trial_folder(trial.number)
        payload = {**self.payload, "document": dict(trial.document), "folder": folder, "epochs": job.epochs}
        options = self.config.trial
        limits = Limits(options.timeout, None if options.memory is None else int(options.memory))
        name = f"trial {trial.number}, {job.epochs} epochs"
        self._jobs[name] = job
        named = [value for value in payload.values() if isinstance(value, Path) and value.suffix]
        reads = tuple(path for path in [*named, folder / "training.pt"] if path.exists())
        return Task(name, work.ENTRY, payload, limits, reads=reads, writes=(folder / work.MODEL,))

    # What came of them

    def _heard(self, event: Event) -> None:
        match event:
            case Started():
                self._begun[event.task.name] = time.monotonic()
            case Progressed():
                self._check_time(event)
            case Finished():
                self._ended(event)

    def _check_time(self, event: Progressed) -> None:
        """Give up where the time is over before the first trial has ended."""
        if self.left > 0 or self.search.done() or not event.stage.startswith("training") or not event.done:
            return
        took = time.monotonic() - self._begun[event.task.name]
        raise _too_short(took * event.total / event.done, self.config)

    def _ended(self, event: Finished) -> None:
        job = self._jobs.pop(event.task.name)
        trial, result = job.trial, event.result
        trial.seconds += event.seconds
        trial.ended = self.seconds
        if event.status is Status.DONE and result is not None:
            trial.status, trial.epochs = "done", job.epochs
            trial.errors[job.epochs] = result["error"]
            trial.figures = {name: result[name] for name in _FIGURES}
            trial.figures["scores"] = result["scores"]
            self.payload = {**self.payload, "metric": result["metric"]}
        elif trial.errors:  # it failed on a further rung: what it had stays
            trial.status, trial.reason = "failed", event.reason
        else:
            trial.status, trial.reason = event.status.value, event.reason
        self.study.keep(trial)
        if trial.number >= BASELINE:
            self._tell()
            return
        self.search.ended(trial)
        if self.shared is not None and trial.is_done:
            self.shared.push(trial)
        trials = self.search.trials
        if len(trials) >= _ALIKE and all(t.status == "failed" for t in trials):
            raise ModelError(f"the first {_ALIKE} candidates all failed; the first one: {trials[0].reason}")
        first, limit = len(self.search.done()) == 1 and trial.is_done, self.config.time
        if first and limit is not None and event.seconds > limit:
            raise _too_short(event.seconds, self.config)
        self._tell()

    def _meet(self) -> None:
        """Learn from what other machines found."""
        if self.shared is not None:
            for stranger in self.shared.pull():
                self.search.meet(stranger)

    def _tell(self) -> None:
        done = [t for t in self.search.done() if violation(t, self.config.limits) == 0] or self.search.done()
        best = min(done, key=lambda t: t.figures["error"], default=None)
        said = "" if best is None else f", best {self.payload.get('metric', 'quality')} {best.figures['quality']:.4g}"
        text = f"{len(self.search.trials)} trials{said}"
        if self.config.time is not None:
            self.progress(text, min(self.seconds, self.config.time), self.config.time)
        elif self.budget is not None:
            self.progress(text, min(self.spent, self.budget), self.budget)


_FIGURES = ("quality", "error", "latency_ms", "bytes", "macs", "parameters")


def _too_short(cost: float, config: NasConfig) -> BudgetError:
    assert config.time is not None
    return BudgetError(
        f"the time is too short for one trial: one takes {cost:.3g} s here, and --time is {config.time:.3g} s",
        f"give --time {max(1, round(12 * cost))}s for about ten trials, or fewer training.epochs",
    )
