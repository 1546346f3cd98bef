"""Bayesian optimisation by Optuna: a tree of Parzen estimators (Bergstra et al., 2011), or a Gaussian process."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from modelkit.nas.space import Genome
from modelkit.nas.strategies.base import Found

_DRAWS = 6
_STEPS = 20


class Bayes:
    """See the top of this file.

    Args:
        sampler: "tpe" or "gp".
    """

    name = "bayes"

    def __init__(self, sampler: Literal["tpe", "gp"] = "tpe") -> None:
        self._sampler = sampler

    def ask(self, found: Found, rng: np.random.Generator) -> Genome:
        """See `Strategy.ask`."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        variables = found.space.variables
        spans: dict[str, Any] = {
            v.name: optuna.distributions.IntDistribution(0, len(v.values) - 1)
            if v.ordered
            else optuna.distributions.CategoricalDistribution(list(range(len(v.values))))
            for v in variables
        }
        seed = int(rng.integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(sampler=self._made(seed))
            study.add_trials(
                [
                    optuna.trial.create_trial(
                        params={v.name: place for v, place in zip(variables, genome, strict=True)},
                        distributions=spans,
                        value=float(score),
                    )
                    for genome, score in zip(found.genomes, found.scores, strict=True)
                ]
            )
            # In a small space its favourites were tried already: other draws, then a walk away from them.
            for _ in range(_DRAWS if self._sampler == "tpe" else 1):
                trial = study.ask(spans)
                genome = found.space.settled([int(trial.params[v.name]) for v in variables])
                if genome not in found.taken:
                    return genome
        for _ in range(_STEPS):
            genome = found.space.mutate(genome, rng)
            if genome not in found.taken:
                break
        return genome

    def _made(self, seed: int) -> Any:
        import optuna

        if self._sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1, deterministic_objective=False)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=True)
