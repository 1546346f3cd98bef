"""How many weights of which layer go, in which pattern: what the config asks, made exact for a set of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from modelkit.errors import ModelError, UsageError
from modelkit.linear.matrix import Layer
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights import masks
from modelkit.prune.weights.masks import Pattern


@dataclass(frozen=True)
class Goal:
    """What is to become zero.

    Attributes:
        sparsity: Share of the weights; not used with N:M or a threshold.
        threshold: Magnitudes below it; None without.
        pattern: N:M or blocks; None for single weights.
        together: Whether all layers are ranked as one.
    """

    sparsity: float
    threshold: float | None = None
    pattern: Pattern | None = None
    together: bool = False

    @classmethod
    def of(cls, config: PruneConfig) -> Goal:
        """Read the config."""
        return cls(
            config.sparsity or 0.0,
            config.threshold,
            masks.parse(config.pattern) if config.pattern else None,
            config.scope == "global",
        )

    def check(self, layers: Sequence[Layer]) -> None:
        """Refuse what cannot be meant, before any work is done.

        Raises:
            UsageError: The threshold is above all weights of a layer.
            ModelError: The pattern would leave every weight where it is.
        """
        if self.threshold is not None:
            for layer in layers:
                largest = float(np.abs(layer.array().astype(np.float32)).max(initial=0))
                if 0 < largest < self.threshold:
                    raise UsageError(
                        f"no weight of '{layer.name}' would be left: the largest has magnitude {largest:.3g}, "
                        f"the threshold is {self.threshold:g}",
                        "lower the threshold, or leave the layer out with --exclude",
                    )
        elif self.pattern is not None and not self.pattern.blocks:
            longest = max(layer.run for layer in layers)
            if longest <= self.pattern.first:
                raise ModelError(
                    f"the pattern {self.pattern} leaves every weight: no layer has more than {longest} inputs",
                    "give a --sparsity instead",
                )

    def keep(self, layer: Layer, scores: np.ndarray, *, by_row: bool = False) -> np.ndarray:
        """Return the mask of what stays of one layer, by scores ``[groups, outputs, inputs]``.

        Args:
            layer: The layer, for the runs of its inputs.
            scores: The higher the more a weight matters; a threshold needs magnitudes.
            by_row: Whether each output loses the same share, where there is no pattern.
        """
        pattern = self.pattern
        if pattern is not None and not pattern.blocks:
            return masks.n_of_m(scores, pattern.first, pattern.second, layer.run)
        if pattern is not None:
            return masks.blocks(scores, pattern.first, pattern.second, layer.run, self.sparsity)
        if self.threshold is not None:
            return scores >= self.threshold
        return masks.lowest_of_rows(scores, self.sparsity) if by_row else masks.drop(scores, self.sparsity)

    @property
    def counts(self) -> bool:
        """Whether the sparsity says how many go, rather than a threshold or N:M."""
        return self.threshold is None and (self.pattern is None or self.pattern.blocks)

    def for_each(self, scores: Sequence[np.ndarray]) -> list[Goal]:
        """Return the goal of each layer: its own sparsity where all are ranked as one, by scores that compare."""
        if not self.together or not self.counts:
            return [self] * len(scores)
        kept = masks.drop(np.concatenate([score.reshape(-1) for score in scores]), self.sparsity)
        parts = np.split(kept, np.cumsum([score.size for score in scores])[:-1])
        return [replace(self, sparsity=1 - float(part.mean()), together=False) for part in parts]

    def chooser(self) -> Callable[[np.ndarray, int, int], np.ndarray]:
        """Return what chooses one group of columns after another, as ``modelkit.prune.weights.obs.sweep`` asks."""
        pattern, seen, gone = self.pattern, 0, 0
        if pattern is not None:
            return lambda costs, start, end: masks.n_of_m(costs, pattern.first, pattern.second, end - start)

        def choose(costs: np.ndarray, start: int, end: int) -> np.ndarray:
            nonlocal seen, gone
            seen += costs.size
            # What one group rounds down the next one makes up for.
            mask = masks.lowest(costs, masks.count_of(self.sparsity, seen) - gone)
            gone = masks.count_of(self.sparsity, seen)
            return mask

        return choose

    def ends(self, layer: Layer, width: int) -> list[int]:
        """Where the groups of columns end whose zeros must be chosen together, left to right."""
        if self.pattern is None:
            return [*range(width, layer.inputs, width), layer.inputs]
        step = self.pattern.second
        return [
            run + min(end, layer.run)
            for run in range(0, layer.inputs, layer.run)
            for end in range(step, layer.run + step, step)
        ]


def check_alive(name: str, before: np.ndarray, mask: np.ndarray) -> None:
    """Refuse a mask that leaves nothing of a layer.

    Raises:
        ModelError: All numbers that were not zero go.
    """
    if before.any() and not (before.astype(bool) & mask).any():
        raise ModelError(
            f"'{name}' would lose all of its {before.size} weights",
            "ask for a lower sparsity or threshold, or leave the layer out with --exclude",
        )
