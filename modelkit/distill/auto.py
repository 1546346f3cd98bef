"""What `modelkit distill` tries: a student that learns from the teacher, and beside it the same one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelkit.candidate import Candidate, Trial
from modelkit.data.dataset import Dataset
from modelkit.data.open import open_dataset
from modelkit.decision import Decision
from modelkit.distill.config import DistillConfig
from modelkit.distill.learning import Learning
from modelkit.distill.student import Deriver, Given, Source, Student
from modelkit.errors import UsageError
from modelkit.graph.edit import become
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.options import Objective
from modelkit.progress import Progress
from modelkit.runtime import input_specs


@dataclass
class Distiller:
    """Makes the candidates, and keeps what they share.

    Attributes:
        model: The normalised teacher.
        config: The resolved options.
        data: What to train on; None where there is none.
        work: Where checkpoints are kept while a training runs.
        kept: Where the teacher's outputs are kept for later runs.
    """

    model: ir.Model
    config: DistillConfig
    data: Dataset | None
    work: Path
    kept: Path
    _compared: bool = field(default=False, init=False)

    def candidates(self) -> list[Candidate]:
        """Return what to try first.

        Raises:
            UsageError: There is no data, or a pattern matches nothing.
            ModelError: No student can be had.
        """
        self._students.check()
        self._learning.check()
        return [self._distilled(self.config.ratio)]

    def refine(self, trials: list[Trial], progress: Progress) -> list[Candidate]:
        """Return the student that is only compared, once it is known which one was chosen."""
        if not self.config.baseline or self._compared or all(trial.status == "failed" for trial in trials):
            return []
        self._compared = True
        return [self._alone(self.config.ratio)]

    @property
    def objective(self) -> Objective:
        """What is preferred: how small the student is was given, so that the best one is wanted."""
        return "quality" if self.config.objective == "balanced" else self.config.objective

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any] | None:
        """Nothing to say: students run in the kernels of the teacher."""
        return None

    def _distilled(self, ratio: float) -> Candidate:
        name = f"{self.config.method}, {self._students.name(ratio)}"

        def sketch(model: ir.Model, progress: Progress) -> list[Decision]:
            return _take(model, self._students.make(ratio, progress))

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            made = sketch(model, progress)
            return [*made, *self._learning.distil(model, f"{ratio:g}", progress), *normalise(model)]

        return Candidate(name, apply, sketch)

    def _alone(self, ratio: float) -> Candidate:
        """The same student without the teacher: trained on the labels, or without labels as it began."""
        labelled = self._data.has_labels

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            made = _take(model, self._students.make(ratio, progress))
            if labelled:
                made += self._learning.alone(model, f"{ratio:g} alone", progress)
            return [*made, *normalise(model)]

        return Candidate("student alone" if labelled else "student, untrained", apply, only_compared=True)

    @property
    def _data(self) -> Dataset:
        if self.data is None:
            raise UsageError(
                "a student learns from data, and there is none",
                "give inputs with --data; labels are not needed, but help",
            )
        return self.data

    @cached_property
    def _students(self) -> Source:
        if self.config.student is not None:
            return Given(Path(self.config.student), self.model, allow_larger=self.config.allow_larger)
        return Deriver(self.model, self.config, self._data)

    @cached_property
    def _unlabelled(self) -> Dataset | None:
        if self.config.unlabelled is None:
            return None
        specs = input_specs(session_of(self.model))
        found = open_dataset(self.config.unlabelled, specs=specs, preprocess=self.config.preprocess)
        found.labels = None
        return found

    @cached_property
    def _learning(self) -> Learning:
        trainings = 2 if self.config.baseline and self._data.has_labels else 1
        return Learning(self.model, self.config, self._data, self.work, self.kept, trainings, self._unlabelled)


def _take(model: ir.Model, student: Student) -> list[Decision]:
    """Put a copy of a student in the place of a model."""
    become(model, student.model.clone())
    return list(student.decisions)
