"""NSGA-II: parents from the best fronts, the lonelier ones first; their children are mixed (Deb et al., 2002)."""

from __future__ import annotations

import numpy as np

from modelkit.nas.pareto import crowding, fronts
from modelkit.nas.space import Genome
from modelkit.nas.strategies.base import Found


class Nsga2:
    """See the top of this file; one child at a time, so that no worker waits for a generation.

    Args:
        population: How many of the best are parents.
        crossover: Share of the children that have two parents.
    """

    name = "nsga2"

    def __init__(self, population: int = 24, crossover: float = 0.5) -> None:
        self._population, self._crossover = population, crossover

    def ask(self, found: Found, rng: np.random.Generator) -> Genome:
        """See `Strategy.ask`."""
        if not len(found.genomes):
            return found.space.sample(rng)
        ranks = fronts(found.points, self._population)
        lonely = np.zeros(len(ranks))
        for rank in range(int(ranks.max()) + 1):
            mine = np.flatnonzero(ranks == rank)
            if (ranks < rank).sum() < self._population:
                lonely[mine] = crowding(found.points[mine])
        order = np.lexsort((-lonely, ranks))[: self._population]

        def parent() -> Genome:
            places = rng.integers(len(order), size=2)
            return found.genomes[order[min(places)]]

        child = parent()
        if rng.random() < self._crossover:
            child = found.space.cross(child, parent(), rng)
        return found.space.mutate(child, rng)
