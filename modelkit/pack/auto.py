"""Packing as a command: one way, which changes no number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.config.options import Objective
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.pack.config import PackConfig
from modelkit.pack.proven import check_packable, pack_model
from modelkit.pack.store import anything_smaller
from modelkit.progress import Progress, silent


@dataclass
class Packer:
    """Makes the one candidate.

    Attributes:
        model: The model.
        config: The resolved options.
    """

    model: ir.Model
    config: PackConfig

    def candidates(self) -> list[Candidate]:
        """Return what to try.

        Raises:
            UsageError: A pattern matches nothing.
            ModelError: The model is too large, or nothing in it can be packed.
        """
        config = self.config
        check_packable(self.model, config.include, config.exclude)
        if not anything_smaller(self.model, config.include, config.exclude, fours=config.effort == "size"):
            self._pack(self.model.clone(), silent)  # which says why, for each weight
        return [Candidate("packed", self._pack)]

    def _pack(self, model: ir.Model, progress: Progress) -> list[Decision]:
        config = self.config
        decisions = pack_model(
            model, config.effort, include=config.include, exclude=config.exclude, progress=progress
        )
        if not any(decision.action == "packed" for decision in decisions):
            reasons = sorted({decision.reason for decision in decisions})
            why = "; ".join(reasons[:3]) or "no weight is large enough"
            raise ModelError(f"nothing to pack: {why}", "prune or quantize the model first")
        return decisions

    def refine(self, trials: list[Trial], progress: Progress) -> list[Candidate]:
        """Nothing more to try."""
        return []

    @property
    def objective(self) -> Objective:
        """What is preferred."""
        return self.config.objective

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any] | None:
        """Nothing to say: weights are rebuilt before the model runs."""
        return None
