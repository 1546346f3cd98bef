"""Regularised evolution: the best of a few at random among the youngest is mutated (Real et al., 2019)."""

from __future__ import annotations

import numpy as np

from modelkit.nas.space import Genome
from modelkit.nas.strategies.base import Found


class Evolution:
    """See the top of this file.

    Args:
        population: The youngest so many trials live; the others died of age.
        tournament: How many of them meet; the best becomes the parent.
    """

    name = "evolution"

    def __init__(self, population: int = 30, tournament: int = 10) -> None:
        self._population, self._tournament = population, tournament

    def ask(self, found: Found, rng: np.random.Generator) -> Genome:
        """See `Strategy.ask`."""
        count = len(found.genomes)
        if not count:
            return found.space.sample(rng)
        alive = np.arange(max(0, count - self._population), count)
        drawn = rng.choice(alive, size=min(self._tournament, len(alive)), replace=False)
        parent = min(drawn, key=lambda number: (found.scores[number], number))
        return found.space.mutate(found.genomes[parent], rng)
