"""The search without training: strategies against a made-up landscape, rungs, Pareto sets, hypervolume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.architectures.signature import Signature
from modelkit.nas.asha import Asha
from modelkit.nas.config import Constraints, Limits
from modelkit.nas.feasible import Architectures
from modelkit.nas.hyperband import Hyperband
from modelkit.nas.pareto import crowding, fronts, hypervolume, knee, unbeaten
from modelkit.nas.parse import parse_space
from modelkit.nas.rungs import Full, Scheduler, ladder
from modelkit.nas.search import Search
from modelkit.nas.strategies.known import strategy
from modelkit.nas.trials import Trial

SPACE = parse_space({"family": "cell", "nodes": 4, "ops": ["skip", "conv1x1", "conv3x3"]})
PROBLEM = Architectures(SPACE, Signature((1, 4, 4), 2), Constraints())
GOOD = np.random.default_rng(5).integers(0, 3, len(SPACE.variables))


def error_of(trial: Trial, epochs: int) -> float:
    """The more places are as they should be the better; fewer epochs see it less clearly."""
    wrong = float((np.array(trial.genome) != GOOD).sum())
    noise = np.random.default_rng([*trial.genome, epochs]).normal() / epochs
    return wrong + 0.3 * noise


def play(search: Search, epochs: int) -> float:
    """Run a search until it has used so many epochs; returns the lowest error."""
    spent = 0
    while spent < epochs and (job := search.next()) is not None:
        spent += job.spent
        trial = job.trial
        trial.status, trial.epochs = "done", job.epochs
        trial.errors[job.epochs] = error = error_of(trial, job.epochs)
        trial.figures = {"error": error, "quality": -error, "macs": trial.macs, "bytes": 1, "latency_ms": 1.0}
        search.ended(trial)
    return min(float((np.array(t.genome) != GOOD).sum()) for t in search.trials)


def searcher(name: str, seed: int = 0, scheduler: Scheduler | None = None, *objectives: str) -> Search:
    goals = objectives or ("error_only",)
    names = ["quality" if goal == "error_only" else goal for goal in goals]
    return Search(PROBLEM, strategy(name), scheduler or Full(9), names, Limits(), 10, 1, seed)


@pytest.mark.parametrize("name", ["evolution", "local", "nsga2", "bayes"])
def test_strategies_beat_random_search(name: str) -> None:
    seeds = range(3 if name == "bayes" else 6)
    own = [play(searcher(name, seed), 9 * 45) for seed in seeds]
    random = [play(searcher("random", seed), 9 * 45) for seed in seeds]
    assert np.mean(own) < np.mean(random)


@pytest.mark.parametrize("name", ["random", "evolution", "local", "nsga2"])
def test_nothing_is_tried_twice_and_the_same_seed_does_the_same(name: str) -> None:
    one, other = (searcher(name, 3, None, "quality", "macs") for _ in range(2))
    play(one, 9 * 60), play(other, 9 * 60)
    assert [t.genome for t in one.trials] == [t.genome for t in other.trials]
    assert len({t.key for t in one.trials}) == len(one.trials) == 60


def test_a_small_space_is_used_up() -> None:
    small = parse_space({"family": "mlp", "layers": [{"width": [4, 8]}, {"width": [0, 4, 8]}]})
    search = Search(
        Architectures(small, Signature((3,), 2), Constraints()),
        strategy("evolution"),
        Full(1),
        ["quality"],
        Limits(),
        2,
    )
    count = 0
    while (job := search.next()) is not None:
        count += 1
        job.trial.status, job.trial.figures = "done", {"error": 1.0, "quality": 0.0}
        search.ended(job.trial)
    assert count == 6


def test_screening_takes_the_largest() -> None:
    plain, screened = searcher("random", 1), searcher("random", 1)
    screened.screen, screened.warmup, plain.warmup = 5, 0, 0
    play(plain, 9 * 30), play(screened, 9 * 30)
    sizes = [np.mean([t.parameters for t in search.trials]) for search in (plain, screened)]
    assert sizes[1] > sizes[0]


def test_ladder() -> None:
    assert ladder(1, 9, 3) == [1, 3, 9]
    assert ladder(2, 20, 3) == [2, 7, 20]
    assert ladder(5, 6, 3) == [6]


@pytest.mark.parametrize("scheduler", [Asha(1, 9, 3), Hyperband(1, 9, 3)], ids=["asha", "hyperband"])
def test_rungs_let_the_best_go_on(scheduler: Scheduler) -> None:
    search = searcher("random", 2, scheduler)
    play(search, 9 * 20)
    ended = [t for t in search.trials if t.epochs == 9]
    stopped = [t for t in search.trials if t.epochs == 1]
    assert len(search.trials) > 30 and ended and stopped
    through = [t for t in ended if 1 in t.errors]
    assert np.mean([t.errors[1] for t in through]) < np.mean([t.errors[1] for t in stopped])
    spent = sum(t.epochs for t in search.trials)
    assert 9 * 19 <= spent <= 9 * 21


def test_hyperband_has_brackets() -> None:
    search = searcher("random", 0, Hyperband(1, 9, 3))
    play(search, 9 * 12)
    firsts = [min(t.errors) for t in search.trials]
    assert firsts[:9] == [1] * 9 and firsts[9:14] == [3] * 5 and firsts[14:17] == [9] * 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=9))
def test_pareto_and_hypervolume_count_boxes(found: list[tuple[int, int, int]]) -> None:
    points = np.array(found, float)
    grid = np.array(list(np.ndindex(6, 6, 6)), float)
    covered = (points[None] <= grid[:, None]).all(axis=2).any(axis=1).sum()
    assert hypervolume(points, np.full(3, 6.0)) == pytest.approx(covered)
    best = points[unbeaten(points)]
    assert hypervolume(best, np.full(3, 6.0)) == pytest.approx(covered)
    ranks = fronts(points)
    assert ranks.min() == 0 and (ranks >= 0).all()
    assert len(crowding(points)) == len(points)


def test_knee() -> None:
    assert knee(np.array([[0.0, 10.0], [1.0, 2.0], [10.0, 0.0]])) == 1
