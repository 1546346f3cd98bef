"""A trial: what was tried, how far it was trained, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelkit.nas.config import Limits
from modelkit.nas.space import Genome


@dataclass
class Trial:
    """One candidate.

    Attributes:
        number: From 0, in the order in which they began.
        genome: Its place in the space.
        key: Tells it from others by what it is.
        document: What rebuilds it.
        source: Who suggested it: "random", the name of a strategy, "given", "planned".
        parameters: Parameters, known before it is trained.
        macs: Multiply-accumulates, likewise.
        status: "new", "running", "done", or why it has no figures: "failed", "crashed", "timed out", "out of memory".
        epochs: How far it was trained.
        errors: Epochs -> error on the validation samples then: what is minimised.
        figures: Of the last: ``quality``, ``error``, ``latency_ms``, ``bytes``, ``macs``, ``parameters``.
        seconds: What all its trainings took.
        ended: Seconds of the search when the last one ended.
        reason: Why it failed, in one line.
    """

    number: int
    genome: Genome
    key: str
    document: Mapping[str, Any]
    source: str
    parameters: int = 0
    macs: int = 0
    status: str = "new"
    epochs: int = 0
    errors: dict[int, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    ended: float = 0.0
    reason: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it has figures."""
        return self.status == "done"


_FIGURES = {"quality": "error", "latency": "latency_ms"}


def goals(trial: Trial, objectives: Sequence[str]) -> tuple[float, ...]:
    """What a trial reached in each objective; less is better in all."""
    return tuple(trial.figures[_FIGURES.get(name, name)] for name in objectives)


def violation(trial: Trial, limits: Limits) -> float:
    """How far a trial is outside the limits, 0 where it keeps them: the sum of the shares beyond each."""
    found, figures = 0.0, trial.figures
    for limit, name in ((limits.max_latency, "latency_ms"), (limits.max_size, "bytes")):
        if limit is not None:
            found += max(0.0, figures[name] / float(limit) - 1)
    if limits.min_quality is not None:
        found += max(0.0, limits.min_quality - figures["quality"]) / max(abs(limits.min_quality), 1e-9)
    return found


def scalar_scores(
    trials: Sequence[Trial], objectives: Sequence[str], limits: Limits, rng: np.random.Generator
) -> np.ndarray:
    """One number for each trial that is done, less is better.

    With one objective it is that. With several it is an augmented Chebyshev distance with weights at random, so that
    a strategy for one objective goes for another part of the Pareto set each time it is asked (Knowles, "ParEGO",
    2006). What is outside the limits comes behind all that is inside, by how far.
    """
    if not trials:
        return np.zeros(0)
    found = np.array([goals(trial, objectives) for trial in trials], np.float64)
    if found.shape[1] == 1:
        scores = found[:, 0]
    else:
        for column, name in enumerate(objectives):
            if name != "quality":
                found[:, column] = np.log(np.maximum(found[:, column], 1e-12))
        low, high = found.min(axis=0), found.max(axis=0)
        unit = (found - low) / np.where(high > low, high - low, 1.0)
        weights = rng.dirichlet(np.ones(len(objectives)))
        scores = (unit * weights).max(axis=1) + 0.05 * (unit * weights).sum(axis=1)
    outside = np.array([violation(trial, limits) for trial in trials])
    span = float(np.ptp(scores)) + 1.0
    return np.where(outside > 0, scores.max() + span * (1 + outside), scores)
