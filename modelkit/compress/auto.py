"""What `modelkit compress` tries: ever fewer weights, then ever fewer values, as long as the budget holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.compress.config import CompressConfig
from modelkit.compress.search import FEWEST_VALUES, MOST_VALUES, next_density
from modelkit.config.options import Objective
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import UsageError
from modelkit.graph.edit import become
from modelkit.progress import Progress

Sparsify = Callable[[ir.Model, float, Progress], list[Decision]]
"""Sets the weights of a model to zero up to a share of all, in place, with training in between."""

Share = Callable[[ir.Model, int, Progress], list[Decision]]
"""Lets the weights of a model take so many values, in place, and trains both."""


@dataclass
class Compressor:
    """Makes the candidates, and keeps what they begin with.

    Attributes:
        model: The normalised model.
        config: The resolved options.
        data: What to train on; None where there is none.
        sparsify: How weights are taken out.
        share: How values are shared.
    """

    model: ir.Model
    config: CompressConfig
    data: Dataset | None
    sparsify: Sparsify
    share: Share
    _sparse: dict[float, tuple[ir.Model, list[Decision]]] = field(default_factory=dict, init=False)
    _tried: dict[str, tuple[float, int]] = field(default_factory=dict, init=False)

    def candidates(self) -> list[Candidate]:
        """Return what to try first.

        Raises:
            UsageError: There is no data, or something is to be found inside a budget that is not set.
        """
        config = self.config
        if self.data is None and (config.pruning.epochs or config.sharing.epochs):
            raise UsageError(
                "compressing trains, and needs data",
                "give the training samples with --data; modelkit quantize --codebook 16 needs none",
            )
        searched = [name for name in ("sparsity", "values") if getattr(config, name) == "auto"]
        if "sparsity" in searched and config.budget.max_drop is None:
            raise UsageError(
                "sparsity: auto takes out as much as the budget allows, and none is set",
                "say what may be lost, as with --max-drop 0.5%, or how many weights go, as with --sparsity 95%",
            )
        first = next_density({}, config.trials) if config.sparsity == "auto" else 1 - float(config.sparsity)
        assert first is not None
        return [self._at(first, self._most_values)]

    def refine(self, trials: list[Trial], progress: Progress) -> list[Candidate]:
        """Return what to try next: another sparsity, or at the best one fewer values."""
        fits = {self._tried[trial.name]: _fits(trial) for trial in trials if trial.name in self._tried}
        if self.config.sparsity == "auto":
            found = {density: ok for (density, values), ok in fits.items() if values == self._most_values}
            density = next_density(found, self.config.trials)
            if density is not None:
                return [self._at(density, self._most_values)]
        good = [point for point, ok in fits.items() if ok]
        if self.config.values != "auto" or not good:
            return []
        density = min(density for density, _ in good)
        values = min(values for each, values in fits if each == density) // 2
        lowest_holds = fits[density, 2 * values]
        return [self._at(density, values)] if lowest_holds and values >= FEWEST_VALUES else []

    @property
    def objective(self) -> Objective:
        """What is preferred."""
        return self.config.objective

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any] | None:
        """Nothing to say: weights are rebuilt before the model runs."""
        return None

    @property
    def _most_values(self) -> int:
        return MOST_VALUES if isinstance(self.config.values, str) else self.config.values

    def _at(self, density: float, values: int) -> Candidate:
        name = f"{1 - density:.2%} zeros, {values} values"
        self._tried[name] = density, values

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            sparse, decisions = self._pruned(density, progress)
            become(model, sparse.clone())
            model.meta.update(sparse.meta)
            return [*decisions, *self.share(model, values, progress)]

        return Candidate(name, apply)

    def _pruned(self, density: float, progress: Progress) -> tuple[ir.Model, list[Decision]]:
        """The model with so many of its weights left, made of the last one that had more of them."""
        if density not in self._sparse:
            above = min((each for each in self._sparse if each > density), default=None)
            start, before = (self.model, []) if above is None else self._sparse[above]
            model = start.clone()
            decisions = [] if density >= 1 else self.sparsify(model, 1 - density, progress)
            known = {decision.target for decision in decisions}
            self._sparse[density] = model, [*decisions, *(each for each in before if each.target not in known)]
        return self._sparse[density]


def _fits(trial: Trial) -> bool:
    return trial.status != "failed" and trial.missed != "quality"
