"""Which ways of pruning are open for a model, a config and the data at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.config.options import Objective
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import UsageError
from modelkit.graph.patterns import nothing_to_do
from modelkit.linear.matrix import layer_of
from modelkit.progress import Progress
from modelkit.prune.channels import ChannelMode
from modelkit.prune.config import PruneConfig
from modelkit.prune.select import prunable_weights
from modelkit.prune.tuning import Tuner, tuner_for
from modelkit.prune.weights.goal import Goal
from modelkit.prune.weights.ways import weight_candidates


@dataclass
class Pruner:
    """Makes the candidates, and keeps what they share.

    Attributes:
        model: The normalised model.
        config: The resolved options.
        data: Inputs for data-driven methods, repairs and fine-tuning; None where there are none.
    """

    model: ir.Model
    config: PruneConfig
    data: Dataset | None

    def candidates(self) -> list[Candidate]:
        """Return what to try first.

        Raises:
            UsageError: Nothing says how much to prune, or a pattern matches nothing.
            ModelError: There is nothing to prune.
        """
        config = self.config
        if self._channels is not None:
            return self._channels.candidates()
        if not config.zeroes:
            raise UsageError(
                "how much should be pruned?",
                "give --sparsity 0.5 to zero half of the weights, or --channels 0.3 to take out 30% of the channels",
            )
        uses, kept = prunable_weights(self.model, config.include, config.exclude)
        if not uses:
            raise nothing_to_do("prune", "weights computed at run time or passed as inputs cannot be pruned", kept)
        Goal.of(config).check([layer_of(use) for use in uses])
        return weight_candidates(config, self.data, self._tuner)

    def refine(self, trials: list[Trial], progress: Progress) -> list[Candidate]:
        """Return what to try next, given what came of the candidates so far."""
        return [] if self._channels is None else self._channels.refine(trials)

    @cached_property
    def _channels(self) -> ChannelMode | None:
        return ChannelMode(self.model, self.config, self.data, self._tuner) if self.config.cuts else None

    @cached_property
    def _tuner(self) -> Tuner | None:
        return tuner_for(self.model, self.config.finetune, self.data, self.config.seed)

    @property
    def objective(self) -> Objective:
        """What is preferred: how much goes is given, so that of candidates the most faithful one is wanted."""
        given = self.config.objective
        return "quality" if given == "balanced" and self.config.channels != "auto" else given

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any] | None:
        """Nothing to say: pruned models run in the kernels of the original."""
        return None
