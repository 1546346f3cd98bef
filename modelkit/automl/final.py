"""The end of a run: the final model from the best trials, inside of the budget, fitted on all rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.automl import build
from modelkit.automl import trial as work
from modelkit.automl.blend import soften
from modelkit.automl.clock import Clock
from modelkit.automl.config import AutomlConfig
from modelkit.automl.ensemble import Choice, calibrate, favour, greedy, prefer_single
from modelkit.automl.families.known import FAMILIES
from modelkit.automl.folds import Fold
from modelkit.automl.front import Point
from modelkit.automl.losses import Metric
from modelkit.automl.past import Past, key_of
from modelkit.automl.problem import Problem
from modelkit.automl.search import Trial
from modelkit.errors import BudgetError
from modelkit.jobs.protocol import Finished, Limits, Runner, Status, Task
from modelkit.report import units

ALL_ROWS = "all.pickle"
_CANDIDATES = 40  # trials that the ensemble chooses from
_SPARE = 0.3  # seconds that are left when sizes and latencies have been compared


@dataclass(frozen=True)
class Plan:
    """A model that could be built.

    Attributes:
        choice: Trials and their weights.
        temperature: How probabilities are softened.
        favour: Factors on classes.
    """

    choice: Choice
    temperature: float = 1.0
    favour: list[float] | None = None


def _limits(clock: Clock) -> Limits:
    """What is left of the time."""
    return Limits(None if clock.limit is None else max(clock.left, 0.1))


def _loss(trial: Trial) -> float:
    return trial.loss if trial.fresh_loss is None else trial.fresh_loss


class Final:
    """Plans and builds final models.

    Args:
        problem: The rows of the search.
        folds: Its folds.
        metric: What is minimised.
        config: Options.
        folder: The folder of the run.
        past: Where predictions out of fold are.
        trials: All trials.
    """

    def __init__(
        self,
        problem: Problem,
        folds: Sequence[Fold],
        metric: Metric,
        config: AutomlConfig,
        folder: Path,
        past: Past,
        trials: Sequence[Trial],
    ) -> None:
        self._config, self._folder, self._past = config, folder, past
        self._trials, self._metric = trials, metric
        there = np.zeros(problem.rows, bool)
        for fold in folds:
            there[fold.valid] = True
        self._there, self._y = there, problem.y[there]
        self._weight = None if problem.weight is None else problem.weight[there]
        self._is_classes = problem.is_classes

    def plans(self) -> Iterator[Plan]:
        """Models to build, the best one by its loss out of fold first: an ensemble, then single ones."""
        ranked = sorted((t for t in self._trials if t.is_done), key=lambda trial: (trial.loss, trial.number))
        fresh = [trial for trial in ranked if trial.fresh_loss is not None]
        if ranked[0] in fresh:  # else there was no time for it, and those that are there say little
            ranked = sorted(fresh, key=lambda trial: (_loss(trial), trial.number))
        best_of: dict[str, Trial] = {}
        for trial in ranked:
            best_of.setdefault(trial.family, trial)
        candidates = {trial.number: trial for trial in [*ranked[:_CANDIDATES], *best_of.values()]}
        is_fresh = all(trial.fresh_loss is not None for trial in ranked)
        found = {number: self._out_of_fold(trial, is_fresh) for number, trial in candidates.items()}
        y, weight, repeats = self._truth(found[ranked[0].number])
        options = self._config.ensemble
        families = {number: trial.family for number, trial in candidates.items()}
        choice = greedy(self._metric, y, found, weight, families, most=options.size)
        complexity = {number: FAMILIES[trial.family].complexity for number, trial in candidates.items()}
        choice = prefer_single(choice, self._metric, y, found, complexity, options.tolerance, repeats)
        yield self._plan(choice, found)
        for trial in [*best_of.values(), *(t for t in ranked[:_CANDIDATES] if best_of[t.family] is not t)]:
            yield self._plan(Choice({trial.number: 1.0}, _loss(trial), single=True), found)

    def _out_of_fold(self, trial: Trial, is_fresh: bool) -> np.ndarray:
        path = self._past.predictions(key_of(trial.family, trial.params), fresh=is_fresh)
        found = np.load(path, allow_pickle=False)[:, self._there]
        return np.asarray(found.reshape(-1, found.shape[2]))

    def _truth(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, int]:
        """What should have been predicted [R * N], its weights, and the number of repetitions R."""
        repeats = len(predicted) // len(self._y)
        return np.tile(self._y, repeats), None if self._weight is None else np.tile(self._weight, repeats), repeats

    def _plan(self, choice: Choice, found: dict[int, np.ndarray]) -> Plan:
        if not self._is_classes:
            return Plan(choice)
        blend = np.sum([weight * found[number] for number, weight in choice.weights.items()], axis=0)
        y, weight, repeats = self._truth(blend)
        temperature = calibrate(y, blend, repeats) if self._config.ensemble.calibrate else 1.0
        factors = favour(self._metric, y, soften(blend, temperature), weight)
        return Plan(choice, temperature, factors)

    def payload(self, plan: Plan, problem: str, kind: str, *, judge: bool) -> dict[str, Any]:
        """What a worker is told to build: see `build.build`."""
        trials = [self._trials[number] for number in plan.choice.weights]
        return {
            "folder": str(self._folder),
            "problem": problem,
            "numbers": [trial.number for trial in trials],
            "members": [
                {"family": t.family, "params": dict(t.params), "rounds": t.rounds, "out": f"{kind}-{t.number}.pickle"}
                for t in trials
            ],
            "weights": list(plan.choice.weights.values()),
            "temperature": plan.temperature,
            "favour": plan.favour,
            "out": str(self._folder / f"{kind}-{'-'.join(str(trial.number) for trial in trials)}.onnx"),
            "judge": judge,
        }

    def build(
        self, runner: Runner, plan: Plan, problem: str, kind: str, clock: Clock, *, judge: bool
    ) -> dict[str, Any]:
        """Fit the members of a plan, several at a time, and build it; see `build.build` for what comes of it.

        Raises:
            BudgetError: It failed, or there was no time for it.
        """
        payload = self.payload(plan, problem, kind, judge=judge)
        common = {"folder": str(self._folder), "problem": problem}
        todo = [m for m in payload["members"] if not (self._folder / m["out"]).exists()]
        # Each task is made when a worker is free for it: its limit is what is left of the time then.
        fits = (Task(f"fit {m['out']}", work.FIT_ENTRY, {**common, **m}, _limits(clock)) for m in todo)
        for event in runner.run(fits):
            if isinstance(event, Finished) and event.status is not Status.DONE:
                raise BudgetError(f"the final fit failed: {event.reason}", event.hint)
        result = None
        for event in runner.run([Task(f"build {kind}", build.ENTRY, payload, _limits(clock))]):
            if isinstance(event, Finished):
                if event.status is not Status.DONE:
                    raise BudgetError(f"the final model cannot be written: {event.reason}", event.hint)
                result = event.result
        assert result is not None
        return {**result, "path": payload["out"]}

    def point(self, plan: Plan, built: dict[str, Any], *, chosen: bool = False) -> Point:
        """A built model as one of those that are compared."""
        trials = tuple(plan.choice.weights)
        name = self._trials[trials[0]].family if len(trials) == 1 else "ensemble"
        return Point(name, trials, plan.choice.loss, built["bytes"], built["latency_ms"], chosen)

    def others(
        self, runner: Runner, plans: Iterator[Plan], known: Sequence[Point], clock: Clock, build_seconds: float
    ) -> Iterator[Point]:
        """Build the best trials of the other families as far as there is time, for their size and latency.

        Args:
            runner: Runs the fits.
            plans: Single models that are left, the best of each family first.
            known: What was built before.
            clock: The time.
            build_seconds: What building takes when all is fitted.
        """
        families = {point.name for point in known}
        for plan in plans:
            (trial,) = (self._trials[number] for number in plan.choice.weights)
            if trial.family in families:
                return
            families.add(trial.family)
            if clock.left > 1.5 * (trial.fit_seconds + build_seconds) + _SPARE:
                with suppress(BudgetError):
                    yield self.point(plan, self.build(runner, plan, work.PROBLEM, "search", clock, judge=False))

    def over_budget(self, built: dict[str, Any]) -> str:
        """What of the budget a built model does not keep; empty where it keeps all."""
        budget = self._config.budget
        if budget.max_size is not None and built["bytes"] > budget.max_size:
            return f"{units.size(built['bytes'])}, and at most {units.size(budget.max_size)} are allowed"
        if budget.max_latency is not None and built["latency_ms"] > budget.max_latency:
            limit = units.milliseconds(budget.max_latency)
            return f"{units.milliseconds(built['latency_ms'])} for one row, and at most {limit} are allowed"
        return ""
