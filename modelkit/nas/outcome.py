"""What a search found: the Pareto set, the best of it, how good the set is, and what random search had reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelkit.errors import BudgetError
from modelkit.nas.config import NasConfig
from modelkit.nas.pareto import hypervolume, knee, unbeaten
from modelkit.nas.run import Run
from modelkit.nas.trials import Trial, goals, violation


@dataclass(frozen=True)
class Chosen:
    """What of all trials is kept.

    Attributes:
        pareto: What nothing else beats in the objectives, inside the limits; the cheapest first.
        best: One of them, by the config's ``pick``.
        knee: The one at the knee.
    """

    pareto: list[Trial]
    best: Trial
    knee: Trial


def choose(trials: Sequence[Trial], config: NasConfig) -> Chosen:
    """Choose what is kept.

    Raises:
        BudgetError: Nothing keeps the limits; says how near the nearest one came.
    """
    inside = [trial for trial in trials if violation(trial, config.limits) == 0]
    if not inside:
        nearest = min(trials, key=lambda t: (violation(t, config.limits), t.number))
        raise BudgetError(
            f"none of the {len(trials)} candidates keeps the limits; the nearest one: {_figures(nearest, config)}",
            "allow more, search for longer, or widen the space to smaller networks",
        )
    points = np.array([goals(trial, config.objectives) for trial in inside], np.float64)
    kept = [trial for trial, good in zip(inside, unbeaten(points), strict=True) if good]
    cost = next((name for name in config.objectives if name != "quality"), "macs")
    kept.sort(key=lambda trial: (goals(trial, [cost, "quality"]), trial.number))
    best = min(kept, key=lambda t: (t.figures["error"], t.figures["macs"], t.number))
    bend = kept[knee(np.array([goals(trial, config.objectives) for trial in kept], np.float64))]
    return Chosen(kept, bend if config.pick == "knee" else best, bend)


def _figures(trial: Trial, config: NasConfig) -> str:
    limits, figures = config.limits, trial.figures
    said = []
    if limits.max_latency is not None:
        said.append(f"{figures['latency_ms']:.3g} ms of {float(limits.max_latency):.3g} ms")
    if limits.max_size is not None:
        said.append(f"{figures['bytes']} bytes of {int(limits.max_size)}")
    if limits.min_quality is not None:
        said.append(f"a quality of {figures['quality']:.4g} where {limits.min_quality:.4g} is asked for")
    return ", ".join(said)


def volume(trials: Sequence[Trial], everything: Sequence[Trial], config: NasConfig) -> float:
    """Hypervolume of trials, as a share of the box around the figures of all trials; costs as logs."""

    def points(found: Sequence[Trial]) -> np.ndarray:
        values = np.array([goals(t, config.objectives) for t in found], np.float64).reshape(len(found), -1)
        for column, name in enumerate(config.objectives):
            if name != "quality":
                values[:, column] = np.log(np.maximum(values[:, column], 1e-12))
        return values

    whole = points(everything)
    low, high = whole.min(axis=0), whole.max(axis=0)
    unit = (points(trials) - low) / np.where(high > low, high - low, 1.0)
    return hypervolume(unit, np.full(unit.shape[1], 1.1)) / 1.1 ** unit.shape[1]


def baseline_of(run: Run) -> dict[str, Any] | None:
    """What random search reached, beside the strategy.

    Of the warm-up: the random trials at the beginning, and the strategy's first trials, as many as those. In full:
    as many random trainings as the search had.
    """
    config = run.config
    if config.baseline == "off":
        return None
    epochs = config.training.epochs
    mine = [t for t in run.search.done() if t.number < 1_000_000]
    if config.baseline == "full":
        random = [t for t in run.extra if t.is_done]
        search = mine
    else:
        random = [t for t in mine if t.source == "random"]
        search = [t for t in mine if t.source not in ("random", "given", "planned")][: len(random)]
    if not random:
        return None
    best = min(random, key=lambda t: (t.figures["error"], t.number))
    against = min(search, key=lambda t: (t.figures["error"], t.number), default=None)
    full = [t for t in random if t.epochs >= epochs]
    return {
        "kind": config.baseline,
        "trials": len(random),
        "full_trainings": len(full),
        "quality": best.figures["quality"],
        "hypervolume": volume(random, [*mine, *random], config),
        "strategy": config.strategy,
        "strategy_trials": len(search),
        "strategy_quality": None if against is None else against.figures["quality"],
        "strategy_hypervolume": volume(search, [*mine, *random], config) if search else None,
    }
