"""What `modelkit distill` tries: a student that learns from the teacher, and beside it the same one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.config.options import Objective
from modelkit.data.dataset import Dataset
from modelkit.data.open import open_dataset
from modelkit.decision import Decision
from modelkit.distill.assistant import Assistant
from modelkit.distill.config import DistillConfig
from modelkit.distill.grown import Grown, architecture_of
from modelkit.distill.integers import Quantize, untrained
from modelkit.distill.learning import Learning
from modelkit.distill.search import TRIALS, Search
from modelkit.distill.student import Deriver, Given, Source, Student
from modelkit.distill.teachers import Teachers
from modelkit.errors import UsageError
from modelkit.graph.edit import become
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.progress import Progress
from modelkit.runtime import input_specs
from modelkit.train.qat import Trainer


@dataclass
class Distiller:
    """Makes the candidates, and keeps what they share.

    Attributes:
        model: The normalised teacher.
        config: The resolved options.
        data: What to train on; None where there is none.
        work: Where checkpoints are kept while a training runs.
        kept: Where the teacher's outputs are kept for later runs.
        quantize: Makes a student one of integers; None where it stays one of floats.
    """

    model: ir.Model
    config: DistillConfig
    data: Dataset | None
    work: Path
    kept: Path
    quantize: Quantize | None = None
    _compared: bool = field(default=False, init=False)
    _ratios: dict[str, float] = field(default_factory=dict, init=False)

    def candidates(self) -> list[Candidate]:
        """Return what to try first.

        Raises:
            UsageError: There is no data, or a pattern matches nothing.
            ModelError: No student can be had.
        """
        self._students.check()
        self._learning.check()
        if self._assistant is not None:
            self._assistant.deriver.check()
        return [self._distilled(self._search.first() if self.config.searches else self._ratio)]

    def refine(self, trials: list[Trial], progress: Progress) -> list[Candidate]:
        """Return the next size to try inside a budget; then the student that is only compared, of the chosen size."""
        if self._compared:
            return []
        if self.config.searches:
            tried = [(self._ratios[trial.name], trial) for trial in trials]
            ratio = self._search.next(tried)
            if ratio is not None and ratio not in self._ratios.values():
                return [self._distilled(ratio)]
        made = [trial for trial in trials if trial.status != "failed"]
        if not self.config.baseline or not made:
            return []
        self._compared = True
        best = next((trial for trial in made if trial.status == "chosen"), made[-1])
        return [self._alone(self._ratios[best.name])]

    @property
    def objective(self) -> Objective:
        """What is preferred: the smallest where a loss is allowed, else the best of the size that is asked for."""
        if self.config.objective != "balanced":
            return self.config.objective
        return "size" if self.config.searches and self.config.budget.max_drop is not None else "quality"

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any] | None:
        """Nothing to say: students run in the kernels of the teacher."""
        return None

    def _distilled(self, ratio: float) -> Candidate:
        name = f"{self.config.method}, {self._students.name(ratio)}"
        self._ratios[name] = ratio

        def sketch(model: ir.Model, progress: Progress) -> list[Decision]:
            made = _take(model, self._students.make(ratio, progress))
            return [*made, *self._finish(model, untrained, progress)]

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            made = _take(model, self._students.make(ratio, progress))
            if self._assistant is not None:
                made += self._assistant.distill(model, ratio, f"{ratio:g}", progress)
            else:
                made += self._learning.distill(model, f"{ratio:g}", progress)
            return [*made, *self._finish(model, self._learning.rounded(True, f"{ratio:g}"), progress)]

        return Candidate(name, apply, sketch)

    def _alone(self, ratio: float) -> Candidate:
        """The same student without the teacher: trained on the labels, or without labels as it began."""
        labelled = self._data.has_labels

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            made, name = _take(model, self._students.make(ratio, progress)), f"{ratio:g} alone"
            trainer: Trainer = untrained
            if labelled:
                made += self._learning.alone(model, name, progress)
                trainer = self._learning.rounded(False, name)
            return [*made, *self._finish(model, trainer, progress)]

        return Candidate("student alone" if labelled else "student, untrained", apply, only_compared=True)

    def _finish(self, model: ir.Model, trainer: Trainer, progress: Progress) -> list[Decision]:
        """Bring a student that has learned into the form that is written."""
        made = normalise(model)
        return made if self.quantize is None else [*made, *self.quantize(model, self._data, trainer, progress)]

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
            architecture = architecture_of(self.config.student)
            if architecture is not None:
                larger = self.config.allow_larger
                return Grown(architecture, self.model, self._data, seed=self.config.seed, allow_larger=larger)
            return Given(Path(str(self.config.student)), self.model, allow_larger=self.config.allow_larger)
        return Deriver(self.model, self.config, self._data)

    @cached_property
    def _unlabelled(self) -> Dataset | None:
        if self.config.unlabelled is None:
            return None
        specs = input_specs(session_of(self.model))
        found = open_dataset(self.config.unlabelled, specs=specs, preprocess=self.config.preprocess)
        found.labels = None
        return found

    @property
    def _ratio(self) -> float:
        return 0.5 if isinstance(self.config.ratio, str) else self.config.ratio

    @cached_property
    def _search(self) -> Search:
        return Search(self._students, self.config, self.model, self._data)

    @cached_property
    def _assistant(self) -> Assistant | None:
        if self.config.assistant is None:
            return None
        source = self._students
        deriver = source if isinstance(source, Deriver) else Deriver(self.model, self.config, self._data)
        return Assistant(deriver, self._learning, self.config)

    @cached_property
    def _learning(self) -> Learning:
        several = self.config.searches and self.config.budget.max_drop is not None
        trainings = (TRIALS if several else 1) * (2 if self.config.assistant is not None else 1)
        trainings += self.config.baseline and self._data.has_labels
        teachers = Teachers(self.model, self.config, self.kept)
        return Learning(teachers, self.config, self._data, self.work, trainings, self._unlabelled)


def _take(model: ir.Model, student: Student) -> list[Decision]:
    """Put a copy of a student in the place of a model."""
    become(model, student.model.clone())
    return list(student.decisions)
