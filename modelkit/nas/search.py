"""The search itself: which trial comes next. It knows nothing of workers, files or clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modelkit.nas.asha import Asha
from modelkit.nas.config import Limits, NasConfig
from modelkit.nas.feasible import Problem
from modelkit.nas.hyperband import Hyperband
from modelkit.nas.rungs import Full, Scheduler
from modelkit.nas.space import Genome, key_of
from modelkit.nas.strategies.base import Found, Strategy
from modelkit.nas.strategies.known import strategy
from modelkit.nas.strategies.random import Random
from modelkit.nas.trials import Trial, goals, scalar_scores, violation

_ATTEMPTS = 200  # suggestions that may not be tried, or were, before the space counts as used up
_LEAST_WARMUP = 10


@dataclass(frozen=True)
class Job:
    """What is trained next.

    Attributes:
        trial: The candidate.
        epochs: Up to which epoch.
        spent: Epochs that this costs.
    """

    trial: Trial
    epochs: int
    spent: int


@dataclass
class Search:
    """A study.

    Attributes:
        problem: What is searched.
        strategy: Who suggests, after the warm-up.
        scheduler: How far trials are trained.
        objectives: What counts; "quality" is one of them.
        limits: What is insisted on.
        warmup: Random trials at the beginning.
        screen: Suggestions that the largest is taken of.
        seed: Seed of everything random.
        first: Candidates that are tried before all others, each with who suggests it.
        trials: All trials, in the order in which they began.
    """

    problem: Problem
    strategy: Strategy
    scheduler: Scheduler
    objectives: Sequence[str]
    limits: Limits
    warmup: int
    screen: int = 1
    seed: int = 0
    first: Sequence[tuple[str, Genome]] = ()
    trials: list[Trial] = field(default_factory=list)
    strangers: list[Trial] = field(default_factory=list)
    _ended: list[Trial] = field(default_factory=list, init=False)
    _taken: set[Genome] = field(default_factory=set, init=False)
    _keys: set[str] = field(default_factory=set, init=False)

    def next(self) -> Job | None:
        """What is trained next; None where there is nothing that was not tried."""
        lost = next((trial for trial in self.trials if trial.status == "new"), None)
        if lost is not None:  # an earlier run was ended while it ran
            epochs = self.scheduler.begin(self.trials[: lost.number])
            lost.status = "running"
            return Job(lost, epochs, epochs)
        further = self.scheduler.resume(self.trials)
        if further is not None:
            trial, epochs = further
            trial.status = "running"
            return Job(trial, epochs, epochs - trial.epochs)
        found = self._suggest()
        if found is None:
            return None
        epochs = self.scheduler.begin(self.trials)
        self.add(found)
        found.status = "running"
        return Job(found, epochs, epochs)

    def add(self, trial: Trial) -> None:
        """Take a trial in, such as one that another run has begun."""
        self.trials.append(trial)
        self._taken.add(trial.genome)
        self._keys.add(trial.key)

    def meet(self, stranger: Trial) -> None:
        """Learn from a trial that another machine made."""
        if stranger.key not in self._keys:
            self._taken.add(stranger.genome)
            self._keys.add(stranger.key)
            self.strangers.append(stranger)
            self._ended.append(stranger)

    def ended(self, trial: Trial) -> None:
        """Learn from a trial that has ended, well or not."""
        if trial in self._ended:
            self._ended.remove(trial)
        if trial.is_done:
            self._ended.append(trial)

    def done(self) -> list[Trial]:
        """Trials with figures, in the order in which they ended; those of other machines among them."""
        return list(self._ended)

    def _suggest(self) -> Trial | None:
        number = len(self.trials)
        if number < len(self.first):
            source, genome = self.first[number]
            candidate = self._candidate(genome, source)
            if candidate is not None:
                return candidate
        random = number - len(self.first) < self.warmup
        by: Strategy = Random() if random else self.strategy
        suggested: list[Trial] = []
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([self.seed, number, attempt])
            # A strategy that has nothing new to say any more leaves the rest to chance.
            who = by if attempt < _ATTEMPTS // 2 else Random()
            genome = who.ask(self._found(rng), rng)
            candidate = self._candidate(genome, who.name)
            if candidate is not None and all(candidate.key != other.key for other in suggested):
                suggested.append(candidate)
            # What is drawn for the baseline is not screened.
            if len(suggested) >= (1 if random else self.screen):
                break
        if not suggested:
            suggested = self._left()
        return max(suggested, key=lambda trial: trial.parameters, default=None)

    def _left(self) -> list[Trial]:
        """Something that was not tried, of a space that is almost used up."""
        if self.problem.space.size > 100_000:
            return []
        for genome in self.problem.space.all():
            candidate = self._candidate(genome, "random")
            if candidate is not None:
                return [candidate]
        return []

    def _candidate(self, genome: Genome, source: str) -> Trial | None:
        """A trial of a candidate; None where it was tried or may not be."""
        if genome in self._taken:
            return None
        looked = self.problem.look(genome)
        if looked.reason:
            return None
        key = key_of(looked.document)
        if key in self._keys:
            self._taken.add(genome)  # the same network in another way of writing
            return None
        return Trial(len(self.trials), genome, key, looked.document, source, looked.parameters, looked.macs)

    def _found(self, rng: np.random.Generator) -> Found:
        done = self._ended
        scores = scalar_scores(done, self.objectives, self.limits, rng)
        points = np.array([goals(t, self.objectives) for t in done], np.float64).reshape(
            len(done), len(self.objectives)
        )
        if len(done):
            outside = np.array([violation(t, self.limits) for t in done])
            points = points + np.where(outside > 0, np.abs(points).max() * (1 + outside), 0.0)[:, None]
        return Found(self.problem.space, [t.genome for t in done], scores, points, frozenset(self._taken))


def search_of(problem: Problem, config: NasConfig, budget: int, first: Sequence[tuple[str, Genome]] = ()) -> Search:
    """Make the search that a config asks for.

    Args:
        problem: What is searched.
        config: Options.
        budget: Full trainings.
        first: Candidates that are tried before all others, each with who suggests it.
    """
    warmup = config.warmup if config.warmup is not None else max(_LEAST_WARMUP, budget // 5)
    by = strategy(config.strategy, config.sampler)
    scheduler = scheduler_of(config)
    return Search(
        problem, by, scheduler, config.objectives, config.limits, warmup, config.screen, config.seed, tuple(first)
    )


def scheduler_of(config: NasConfig) -> Scheduler:
    """How far trials are trained."""
    most, options = config.training.epochs, config.fidelity
    if options.method == "asha":
        return Asha(options.min_epochs, most, options.eta)
    if options.method == "hyperband":
        return Hyperband(options.min_epochs, most, options.eta)
    return Full(most)
