"""What every strategy is handed: what was found so far. A strategy has no memory of its own, so any study goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from modelkit.nas.space import Genome, Space


@dataclass(frozen=True)
class Found:
    """Trials that have figures, in the order in which they ended.

    Attributes:
        space: Where to search.
        genomes: What was tried.
        scores: One number for each, less is better [N].
        points: Each objective of each, less is better [N, K]; outside the limits all are worse.
        taken: All that must not be suggested again, running trials included.
    """

    space: Space
    genomes: Sequence[Genome]
    scores: np.ndarray
    points: np.ndarray
    taken: frozenset[Genome] = field(default_factory=frozenset)


class Strategy(Protocol):
    """Suggests candidates.

    Attributes:
        name: What it is called in a config.
    """

    name: str

    def ask(self, found: Found, rng: np.random.Generator) -> Genome:
        """Suggest a candidate; asked again where it may not be tried or was tried already.

        Args:
            found: What was found so far.
            rng: Where all chance comes from.
        """
