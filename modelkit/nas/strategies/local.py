"""Local search: the untried neighbours of the best, then of the next best (White et al., 2021: hill climbing)."""

from __future__ import annotations

import numpy as np

from modelkit.nas.space import Genome
from modelkit.nas.strategies.base import Found


class Local:
    """Climbs from the best that was found; at the top of a hill it goes on from the next best that has a way up."""

    name = "local"

    def ask(self, found: Found, rng: np.random.Generator) -> Genome:
        """See `Strategy.ask`."""
        for number in np.argsort(found.scores, kind="stable"):
            near = [g for g in found.space.neighbours(found.genomes[number]) if g not in found.taken]
            if near:
                return near[int(rng.integers(len(near)))]
        return found.space.sample(rng)
