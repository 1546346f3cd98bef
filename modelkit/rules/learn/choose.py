"""The choice among learners and sizes: cross-validated accuracy against the number of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from modelkit.progress import Progress, silent
from modelkit.rules.evaluate import evaluate
from modelkit.rules.learn.compose import size as size_of
from modelkit.rules.learn.config import LearnConfig
from modelkit.rules.learn.methods import Fitter, methods, sizes
from modelkit.rules.learn.problem import Problem, folds
from modelkit.rules.learn.shares import brier
from modelkit.rules.model import RuleSet

_MANY = 1000  # rows


@dataclass(frozen=True)
class Candidate:
    """A learner at a size, measured by cross-validation.

    Attributes:
        method: The learner.
        size: Rules it was allowed.
        quality: Accuracy (R² for numbers), mean over the folds.
        error: Standard error of that mean.
        rules: Rules, mean over the folds; a list's default counts as one.
        literals: Comparisons, mean over the folds.
        per_fold: What is chosen by, of each fold: quality, for labels half of it replaced by how well the
            probabilities fit (1 less the Brier score), and smoothed over neighbouring sizes. On few rows accuracy
            alone is coarse.
    """

    method: str
    size: int
    quality: float
    error: float
    rules: float
    literals: float
    per_fold: tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        rules: The rule set, learned from all rows.
        chosen: Its candidate.
        candidates: All that were measured.
        pareto: Those that no other beats in both quality and number of comparisons, fewest comparisons first.
    """

    rules: RuleSet
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    pareto: tuple[Candidate, ...]


def quality(rules: RuleSet, problem: Problem) -> float:
    """Accuracy, or R² for numbers, on the rows of a problem."""
    result = evaluate(rules, problem.table).result
    if problem.is_numeric:
        rest = float(((result - problem.truth) ** 2).sum())
        whole = float(((problem.truth - problem.truth.mean()) ** 2).sum())
        return 1 - rest / whole if whole else float(rest == 0)
    truth = np.array(problem.classes, object)[problem.truth]
    return float((result.astype(object) == truth).mean())


@dataclass(frozen=True)
class Extras:
    """What extraction adds to learning.

    Attributes:
        more: Training rows -> the same and more, such as made-up ones that a teacher labelled.
        splits: Thresholds by column that take the place of values; None for values.
        probe: Held-out rows -> made-up rows near them. With it the choice is by the accuracy on both in equal
            parts, since a teacher can be asked about any number of rows; without it, see `Candidate.per_fold`.
    """

    more: Callable[[Problem], Problem] = lambda problem: problem
    splits: Mapping[str, np.ndarray] | None = None
    probe: Callable[[Problem], Problem] | None = None


def fold_count(problem: Problem, config: LearnConfig) -> int:
    """Parts of the cross-validation: fewer where there are many rows, since each then says enough."""
    return config.folds or (5 if len(problem) <= _MANY else 3)


def repeats(problem: Problem, config: LearnConfig) -> int:
    """How often the cross-validation is made, with other parts: twice where there are few rows."""
    return config.repeats or (2 if len(problem) <= _MANY else 1)


def _folds(problem: Problem, config: LearnConfig, seed: int) -> list[np.ndarray]:
    return folds(problem, fold_count(problem, config), seed)


def cross_validate(
    problem: Problem,
    config: LearnConfig,
    progress: Progress = silent,
    extras: Extras = Extras(),
) -> list[Candidate]:
    """Measure every learner at every size on rows that it has not seen.

    Args:
        problem: The rows.
        config: Learners, sizes, folds and seed.
        progress: Told of each fold and learner.
        extras: More training rows, other thresholds.
    """
    parts = [part for seed in range(repeats(problem, config)) for part in _folds(problem, config, config.seed + seed)]
    learners = methods(problem, config)
    steps, done = len(parts) * len(learners), 0
    scores: dict[tuple[str, int], list[Scores]] = {}
    for held in parts:
        train = extras.more(problem.rows(~held))
        fitter = Fitter(train, config.bins, extras.splits)
        test = problem.rows(held)
        probe = None if extras.probe is None else extras.probe(test)
        for name, path in learners.items():
            progress(f"learning: {name}", done, steps)
            for size, rules in fitter.fit(path, sizes(config.max_rules)).items():
                scores.setdefault((name, size), []).append(_scores(rules, train, test, probe))
            done += 1
    complete = {key: np.array(found, np.float64) for key, found in scores.items() if len(found) == len(parts)}
    return [_candidate(*key, values, _smoothed(*key, complete)) for key, values in complete.items()]


Scores = tuple[float, float, int, int]
"""Quality, what is chosen by, rules, comparisons."""


def _scores(rules: RuleSet, train: Problem, test: Problem, probe: Problem | None) -> Scores:
    right = quality(rules, test)
    if probe is not None:
        other = quality(rules, probe)
    else:
        other = right if test.is_numeric else 1 - brier(rules, train, test)
    return right, 0.5 * right + 0.5 * other, *size_of(rules)


def _smoothed(name: str, size: int, scores: dict[tuple[str, int], np.ndarray]) -> np.ndarray:
    """What is chosen by in each fold: half of it of the size itself, the rest of the sizes beside it."""
    same = sorted(other for method, other in scores if method == name)
    at = same.index(size)
    beside = [each for i, each in enumerate(same) if abs(i - at) == 1]
    total = 2 * scores[name, size][:, 1] + sum((scores[name, each][:, 1] for each in beside), np.zeros(1))
    smooth: np.ndarray = total / (2 + len(beside))
    return smooth


def _candidate(name: str, size: int, values: np.ndarray, judged: np.ndarray) -> Candidate:
    error = float(values[:, 0].std(ddof=1) / np.sqrt(len(values)))
    mean = values.mean(axis=0)
    per_fold = tuple(float(value) for value in judged)
    return Candidate(name, size, float(mean[0]), error, float(mean[2]), float(mean[3]), per_fold)


def pareto(candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other beats in both quality and literals, fewest literals first."""
    found: list[Candidate] = []
    for each in sorted(candidates, key=lambda c: (c.literals, -c.quality, c.rules)):
        if not found or each.quality > found[-1].quality:
            found.append(each)
    return found


def pick(candidates: list[Candidate], tolerance: float) -> Candidate:
    """The candidate of the fewest literals that is judged within some standard errors of the best.

    The error is that of the difference to the best over the folds, which have the same rows for all.
    """
    ordered = sorted(candidates, key=lambda c: (c.literals, c.rules, c.method))
    best = max(ordered, key=lambda c: np.mean(c.per_fold))
    for each in ordered:
        gap = np.array(best.per_fold) - np.array(each.per_fold)
        error = float(gap.std(ddof=1) / np.sqrt(len(gap)))
        if gap.mean() <= tolerance * error + 1e-12:
            return each
    return best


def choose(
    problem: Problem,
    config: LearnConfig,
    progress: Progress = silent,
    extras: Extras = Extras(),
) -> Choice | None:
    """Learn the rule set of the best learner and size.

    Args:
        problem: The rows; nothing else is looked at.
        config: How.
        progress: Told of each step.
        extras: More training rows, other thresholds.

    Returns:
        The choice; None where no learner found a rule.
    """
    candidates = cross_validate(problem, config, progress, extras)
    left = list(candidates)
    fitter = Fitter(extras.more(problem), config.bins, extras.splits)
    learners = methods(problem, config)
    while left:
        best = pick(left, config.tolerance)
        progress(f"learning: {best.method}, {best.size} rules", 1, 1)
        rules = fitter.fit(learners[best.method], _up_to(config, best.size)).get(best.size)
        if rules is not None:
            return Choice(rules, best, tuple(candidates), tuple(pareto(candidates)))
        left.remove(best)
    return None


def _up_to(config: LearnConfig, size: int) -> list[int]:
    """The sizes on the way to one: learners that grow pass through them."""
    return [each for each in sizes(config.max_rules) if each <= size]
