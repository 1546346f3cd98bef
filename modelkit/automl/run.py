"""The course of a run: trials on folds, an early artifact, the final model from the best of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelkit.automl import build
from modelkit.automl import trial as work
from modelkit.automl.clock import Clock
from modelkit.automl.config import AutomlConfig
from modelkit.automl.ensemble import Choice
from modelkit.automl.families.known import usable
from modelkit.automl.final import ALL_ROWS, Final, Plan
from modelkit.automl.folds import how_many, make_folds, set_apart
from modelkit.automl.front import Point
from modelkit.automl.losses import Metric
from modelkit.automl.made import Outcome, Publish
from modelkit.automl.past import Past, key_of
from modelkit.automl.problem import Problem
from modelkit.automl.search import Search, Trial
from modelkit.cores import usable_cores
from modelkit.errors import BudgetError, UsageError
from modelkit.jobs.protocol import Event, Finished, Limits, Runner, Started, Status, Task
from modelkit.progress import Progress

_FINALISTS, _OF_FAMILY = 12, 3  # trials that are tried again on fresh folds, and how many of one family
_MANY = 20  # done trials from which on the rank of the best one is luck enough to try it again
_SLACK = 0.03  # share of the worst loss that a trial may always be worse by
_MEMBERS = 5  # members of an ensemble that time is kept for
_BATCH = 8  # trials between looks at results where a run must be the same each time


class Run:
    """One run.

    Args:
        problem: All rows, but for those of a test file.
        test: Rows of a test file; None to set a part of the rows apart.
        config: Options.
        folder: A folder of this run alone.
        past: What is kept while the run lasts, and what an earlier one found out.
        clock: The time.
        publish: Told of each artifact.
        progress: Told how far the run is.
    """

    def __init__(
        self,
        problem: Problem,
        test: Problem | None,
        config: AutomlConfig,
        folder: Path,
        past: Past,
        clock: Clock,
        publish: Publish,
        progress: Progress,
    ) -> None:
        self._config, self._folder, self._past, self._clock = config, folder, past, clock
        self._publish, self._progress = publish, progress
        self._all = problem
        self._problem, self.held, self.apart = set_apart(problem, test, config.held_out, config.seed)
        self.metric = config.metric or (Metric.log_loss if problem.is_classes else Metric.rmse)
        folds, repeats = how_many(self._problem, config.search.folds)
        self.folds = make_folds(self._problem, folds, repeats, config.seed)
        self.scheme = f"{folds} folds" + (f" x {repeats}" if repeats > 1 else "")
        families = usable(self._problem.rows, problem.width if problem.is_classes else 0)
        families = [f for f in families if f.takes_weights or problem.weight is None]
        if config.families is not None:
            families = [f for f in families if f.name in config.families]
        if not families:
            raise UsageError(
                f"none of the families {', '.join(config.families or [])} fits a table of {self._problem.rows} rows",
                "modelkit schema automl lists them all",
            )
        method = config.search
        self.search = Search(families, config.space, method.method, method.first, config.seed)
        self._best: Trial | None = None
        self._worst = 0.0
        self._began = clock.spent
        self._startup: float | None = None
        self._published: tuple[int, float] | None = None
        self._build_seconds = 0.5
        self._outcome: Outcome | None = None
        self._final = Final(self._problem, self.folds, self.metric, config, folder, past, self.search.trials)
        for name, value in ((work.PROBLEM, self._problem), (work.FOLDS, self.folds), (build.HELD_OUT, self.held)):
            work.keep(folder / name, value)
        work.keep(folder / ALL_ROWS, self._all if test is None else problem)

    @property
    def rows(self) -> dict[str, int]:
        """How many rows serve for what."""
        return {"search": self._problem.rows, "held out": self.held.rows, "all": self._all.rows}

    def run(self, runner: Runner) -> Outcome:
        """Search, and build the final model.

        Raises:
            BudgetError: No model was finished in time.
        """
        if self._config.max_trials is not None:
            for batch in self._batches(self._config.max_trials):
                # All tasks are made before the first runs: what they are told must not hang on which one ends first.
                tasks = [self._task(trial) for trial in batch if not self._past.recall(trial)]
                for event in runner.run(tasks):
                    self._heard(event, at_once=False)
                for trial in batch:
                    self._learn(trial)
        else:
            self._remember()
            for event in runner.run(self._stream()):
                self._heard(event)
        done = [trial for trial in self.search.trials if trial.is_done]
        if not done:
            failed = next((t for t in self.search.trials if t.reason), None)
            more = f"; the first one: {failed.reason}" if failed else ""
            limit = f" within {self._clock.limit:g} s" if self._clock.limit else ""
            raise BudgetError(f"no model was finished{limit}{more}", "give it more --time")
        if self._confirms:
            self._confirm(runner)
        return self._finish(runner)

    # Trials

    def _finalists(self) -> list[Trial]:
        """Trials that are tried again on fresh folds: the best ones, not too many of one family."""
        found: list[Trial] = []
        for trial in sorted((t for t in self.search.trials if t.is_done), key=lambda t: (t.loss, t.number)):
            if sum(other.family == trial.family for other in found) < _OF_FAMILY and len(found) < _FINALISTS:
                found.append(trial)
        return found

    def _confirm(self, runner: Runner) -> None:
        """Try the best trials again, on folds that the search has not seen.

        The best of many trials owes its rank in part to luck with its folds; on small tables, to a large part.
        """
        folds, repeats = how_many(self._problem, self._config.search.folds, fresh=True)
        fresh = make_folds(self._problem, folds, repeats, self._config.seed + 1_000_003)
        work.keep(self._folder / work.FRESH_FOLDS, fresh)
        finalists = self._finalists()
        for event in runner.run(self._task(trial, fresh=True) for trial in finalists):
            if isinstance(event, Finished) and event.status is Status.DONE and event.result is not None:
                trial = self.search.trials[event.task.payload["number"]]
                if not event.result["dropped"]:
                    trial.fresh_loss = event.result["loss"]
                self._tell(trial)

    def _batches(self, count: int) -> Iterator[list[Trial]]:
        while count > 0:
            found = [trial for _ in range(min(_BATCH, count)) if (trial := self.search.next()) is not None]
            if not found:
                return
            count -= len(found)
            yield found

    def _remember(self) -> None:
        """Take over what an earlier run found out."""
        for record in self._past.records.values():
            if record["family"] in self.search.families:
                trial = self.search.add(record["family"], record["params"], record["source"])
                self._past.recall(trial)
                self._learn(trial)

    def _stream(self) -> Iterator[Task]:
        least = max(0.4, 0.04 * (self._clock.limit or 0.0))  # shorter than this, a trial is not worth beginning
        while self._clock.left > self._reserve() + least or self._has_hardly_begun():
            if self._wants_artifact():
                yield self._early_task()
                continue
            trial = self.search.next(self._fits_in)
            if trial is None:
                return
            yield self._task(trial)

    def _has_hardly_begun(self) -> bool:
        """Whether there is little but the constant, and some time."""
        done = sum(trial.is_done for trial in self.search.trials)
        limit = self._clock.limit or 0.0
        return done < 2 and len(self.search.trials) < 3 and self._clock.left > 0.3 * limit

    def _fits_in(self, family: str) -> bool:
        """Whether a trial of a family can be expected to end in time, going by those before."""
        took = [t.seconds for t in self.search.trials if t.family == family and t.is_done]
        return (
            self._has_hardly_begun() or not took or sorted(took)[len(took) // 2] < self._clock.left - self._reserve()
        )

    def _task(self, trial: Trial, *, fresh: bool = False) -> Task:
        seconds, until = self._config.trial.timeout, None
        if self._config.max_trials is None:
            reserve = self._reserve(confirms=not fresh)
            left = max(0.1, self._clock.left - reserve)
            # A trial stops by itself between folds. What does not is ended: its worker must start anew.
            soft = min(0.85 * left, seconds if seconds is not None else max(left / 4, 5.0))
            until = time.monotonic() + soft
            seconds = min(left + 0.4 * reserve, 1.5 * soft + 1.0)
        memory = self._config.trial.memory
        race = None
        if self._best is not None:
            slack = self._config.search.slack * self._best.loss + _SLACK * self._worst
            race = None if fresh else {"losses": self._best.losses, "slack": slack}
        payload = {
            "folder": str(self._folder),
            "folds": work.FRESH_FOLDS if fresh else work.FOLDS,
            "number": trial.number,
            "family": trial.family,
            "params": dict(trial.params),
            "metric": self.metric.value,
            "race": race,
            "until": until,
            "out": str(self._past.predictions(key_of(trial.family, trial.params), fresh=fresh)),
        }
        limits = Limits(seconds, None if memory is None else int(memory))
        return Task(f"trial {trial.number}", work.ENTRY, payload, limits)

    def _heard(self, event: Event, *, at_once: bool = True) -> None:
        if isinstance(event, Started) and self._startup is None:
            self._startup = self._clock.spent - self._began
        if not isinstance(event, Finished):
            return
        if event.task.entry == build.ENTRY:
            self._early(event)
            return
        trial = self.search.trials[event.task.payload["number"]]
        trial.seconds, trial.ended = event.seconds, self._clock.spent
        if event.status is Status.DONE and event.result is not None:
            found = event.result
            trial.loss, trial.losses, trial.fit_seconds = found["loss"], found["losses"], found["fit"]
            trial.rounds = found["rounds"]
            trial.status = "done"
            if found["dropped"]:
                trial.status = f"{'out of time' if found['late'] else 'dropped'} after {found['dropped']} folds"
        else:
            trial.status, trial.reason = event.status.value, event.reason
        if trial.is_done or trial.status.startswith("dropped"):
            self._past.keep(trial)
        if at_once:
            self._learn(trial)
        self._tell(trial)

    def _learn(self, trial: Trial) -> None:
        """Let a trial that ended guide those that follow."""
        if trial.is_done and (self._best is None or trial.loss < self._best.loss):
            self._best = trial
        if trial.is_done:
            self._worst = max(self._worst, trial.loss)
        self.search.tell(trial)

    def _tell(self, trial: Trial) -> None:
        """Tell how far the run is."""
        best = "" if self._best is None else f", best {self._best.family} {self._best.loss:.4g}"
        limit = self._clock.limit
        if self._config.max_trials is not None:
            self._progress(f"trial {trial.number}{best}", len(self.search.trials), self._config.max_trials)
        elif limit is not None:
            self._progress(f"trial {trial.number}{best}", min(self._clock.spent, limit), limit)

    # Artifacts

    def _reserve(self, *, confirms: bool = True) -> float:
        """Seconds that the end is expected to take, the second look at the best trials included."""
        again = 0.0
        if confirms and self._confirms:
            again = 1.5 * sum(trial.seconds for trial in self._finalists()) / self.workers
            again = min(again, 0.3 * (self._clock.limit or 0.0))
        top = sorted((t for t in self.search.trials if t.is_done), key=lambda trial: trial.loss)
        top = top[: min(_MEMBERS, self._config.ensemble.size)]
        fits = 1.3 * sum(trial.fit_seconds for trial in top)
        workers = self.workers
        longest = max((trial.fit_seconds for trial in top), default=0.0)
        passes = 2.3 if self._refits else 1.0
        needed = 0.3 + again + passes * max(1.3 * longest, fits / workers) + 2.0 * self._build_seconds
        if any(trial.status == Status.TIMED_OUT.value for trial in self.search.trials):
            needed += self._startup or 1.5  # a worker that was ended starts anew
        return needed if self._clock.limit is None else min(needed, 0.5 * self._clock.limit)

    @property
    def _confirms(self) -> bool:
        """Whether the best trials are tried again on fresh folds in the end."""
        done = sum(trial.is_done for trial in self.search.trials)
        return self._problem.rows <= self._config.search.confirm and done >= _MANY

    @property
    def _refits(self) -> bool:
        """Whether the models are fitted again in the end, on the rows set apart too."""
        return self._config.refit and self._all is not self._problem

    @property
    def workers(self) -> int:
        """Trials at a time."""
        return self._config.workers or usable_cores()

    def _wants_artifact(self) -> bool:
        """Whether an early artifact is due: at once when there is a model, then now and then when a better one is."""
        if self._best is None:
            return False
        if self._published is None:
            return True
        number, at = self._published
        every = max(5.0, 0.2 * (self._clock.limit or 0))
        return self._best.number != number and self._clock.spent - at > every

    def _early_task(self) -> Task:
        assert self._best is not None
        self._published = (self._best.number, self._clock.spent)
        plan = Plan(Choice({self._best.number: 1.0}, self._best.loss, single=True))
        payload = self._final.payload(plan, work.PROBLEM, "search", judge=True)
        return Task(
            f"artifact of trial {self._best.number}", build.ENTRY, payload, Limits(max(1.0, self._clock.left))
        )

    def _early(self, event: Finished) -> None:
        if event.status is not Status.DONE or event.result is None:
            return
        self._build_seconds = event.result["seconds"]
        number = event.task.payload["numbers"][0]
        if self._final.over_budget(event.result):
            return
        choice = Choice({number: 1.0}, self.search.trials[number].loss)
        self._outcome = Outcome(self.search.trials, choice, event.result)
        self._publish(Path(event.task.payload["out"]), self._outcome)

    def _finish(self, runner: Runner) -> Outcome:
        """Build the best plan inside of the budget, judge it, and fit it again on all rows."""
        if self._outcome is not None and self._clock.left < 0.7 * self._build_seconds:
            return self._leave("there was no time to build a better one")
        tried: list[tuple[float, float, str]] = []
        others: list[Point] = []
        plans = self._final.plans()
        for plan in plans:
            self._progress("building the model", 0, 1)
            try:
                judged = self._final.build(runner, plan, work.PROBLEM, "search", self._clock, judge=True)
            except BudgetError as error:
                if self._outcome is None:
                    raise
                return self._leave(error.message)
            over = self._final.over_budget(judged)
            if not over:
                outcome = self._refit(runner, plan, judged)
                self._progress("comparing sizes and latencies", 0, 1)
                others += self._final.others(runner, plans, others, self._clock, self._build_seconds)
                return self._compared(outcome, others)
            others.append(self._final.point(plan, judged))
            tried.append((judged["bytes"], judged["latency_ms"], over))
        raise BudgetError(f"no model keeps the budget; the smallest has {min(tried)[2]}", "allow more")

    def _leave(self, why: str) -> Outcome:
        """Let the last early artifact be the final one."""
        assert self._outcome is not None
        self._outcome.final = True
        self._outcome.notes.append(f"this is the last early artifact: {why}")
        return self._published_again()

    def _refit(self, runner: Runner, plan: Plan, judged: dict[str, Any]) -> Outcome:
        trials = self.search.trials
        outcome = Outcome(trials, plan.choice, judged, plan.temperature, plan.favour, final=True)
        need = 1.3 * sum(trials[number].fit_seconds for number in plan.choice.weights) + self._build_seconds
        if self._refits and self._clock.left < need:
            outcome.notes.append("there was no time to fit the models on the rows that were set apart too")
        elif self._refits:
            self._progress("fitting on all rows", 0, 1)
            try:
                found = self._final.build(runner, plan, ALL_ROWS, "all", self._clock, judge=False)
            except BudgetError as error:
                outcome.notes.append(f"the models are fitted without the rows set apart: {error.message}")
            else:
                over = self._final.over_budget(found)
                if over:
                    outcome.notes.append(
                        f"fitted on all rows it would have {over}, so it is fitted without those apart"
                    )
                else:
                    outcome.built = {**found, "scores": judged["scores"], "picture": judged["picture"]}
                    outcome.refitted = True
        self._outcome = outcome
        return self._published_again()

    def _compared(self, outcome: Outcome, others: list[Point]) -> Outcome:
        """Publish the artifact again, beside what else could be had."""
        mine = self._final.point(Plan(outcome.choice), outcome.built, chosen=True)
        outcome.front = [mine, *(point for point in others if point.trials != mine.trials)]
        return self._published_again()

    def _published_again(self) -> Outcome:
        assert self._outcome is not None
        self._progress("writing", 0, 1)
        self._publish(Path(self._outcome.built["path"]), self._outcome)
        return self._outcome
