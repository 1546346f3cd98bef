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
from modelkit.graph.edit import become
from modelkit.pack.config import PackConfig
from modelkit.pack.proven import pack_model
from modelkit.progress import Progress


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
        """Return what to try, which is made already: nothing to do is known before anything is measured.

        Raises:
            UsageError: A pattern matches nothing.
            ModelError: Nothing can be packed, or not this model.
        """
        packed = self.model.clone()
        decisions = self._pack(packed)

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            become(model, packed.clone())
            return decisions

        return [Candidate("packed", apply)]

    def _pack(self, model: ir.Model) -> list[Decision]:
        config = self.config
        decisions = pack_model(model, config.effort, include=config.include, exclude=config.exclude)
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
