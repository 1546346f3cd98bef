"""Whom a student follows: the model itself and others, as one teacher that gives the mean of what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelkit.distill.config import DistillConfig
from modelkit.graph.run import session_of
from modelkit.graph.stripped import model_digest

if TYPE_CHECKING:
    from modelkit.train.teacher import Teacher


@dataclass
class Teachers:
    """Makes one teacher of all.

    Attributes:
        model: The model that is distilled, normalised.
        config: `teachers`, `weights` and the threads of training are read.
        kept: Where what they say is kept for later runs.
    """

    model: ir.Model
    config: DistillConfig
    kept: Path

    def together(self, inside: Sequence[str] = ()) -> Teacher:
        """Return the one teacher.

        Args:
            inside: Tensors inside the model that it gives too; those of the other teachers are not looked at.

        Raises:
            ModelError: onnxruntime cannot load one.
        """
        from modelkit.train.teacher import Ensemble, Teacher

        session = session_of(self.model, extra_outputs=inside, threads=self.config.training.threads)
        key = hashlib.sha256("\n".join([self._digest, *inside]).encode()).hexdigest() if inside else self._digest
        first = Teacher(session, key=key, folder=self.kept)
        if not self._others:
            return first
        weights = self.config.weights or [1.0] * (len(self._others) + 1)
        return Ensemble([first, *self._others], weights, folder=self.kept, own=inside)

    @cached_property
    def _digest(self) -> str:
        return model_digest(self.model)

    @cached_property
    def _others(self) -> list[Teacher]:
        from modelkit.train.teacher import Teacher

        return [Teacher.load(path, threads=self.config.training.threads) for path in self.config.teachers]
