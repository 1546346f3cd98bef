"""Random search: each candidate evenly from the whole space (Bergstra and Bengio, 2012)."""

from __future__ import annotations

import numpy as np

from modelkit.nas.space import Genome
from modelkit.nas.strategies.base import Found


class Random:
    """See the top of this file."""

    name = "random"

    def ask(self, found: Found, rng: np.random.Generator) -> Genome:
        """See `Strategy.ask`."""
        return found.space.sample(rng)
