"""A student learns: from the teacher's outputs with labels or without, or, to compare, from the labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.data.join import Joined
from modelkit.data.split import SPLIT_FROM, split
from modelkit.decision import Decision
from modelkit.distill.config import DistillConfig
from modelkit.graph.run import session_of
from modelkit.graph.stripped import model_digest
from modelkit.progress import Progress
from modelkit.train.config import TrainOptions
from modelkit.train.follow import Follow
from modelkit.train.history import note, summary

if TYPE_CHECKING:
    from modelkit.train.teacher import Teacher


@dataclass
class Learning:
    """Trains students of one teacher.

    Attributes:
        teacher: The normalised teacher.
        config: The resolved options.
        data: What to train on.
        work: Where checkpoints are kept while a training runs.
        kept: Where the teacher's outputs are kept for later runs.
        trainings: How many trainings share the time that there is.
        unlabelled: Further inputs, which only the teacher answers for.
    """

    teacher: ir.Model
    config: DistillConfig
    data: Dataset
    work: Path
    kept: Path
    trainings: int = 1
    unlabelled: Dataset | None = None

    def check(self) -> None:
        """Refuse teachers that cannot be run on the data, or do not agree in what they give.

        Raises:
            ModelError: Says which one, and what it takes or gives.
        """
        self._followed.run(next(iter(self.data.batches(1))).inputs)

    def distil(self, student: ir.Model, name: str, progress: Progress) -> list[Decision]:
        """Train a student in place on what the teacher says.

        Args:
            student: A network whose outputs are like the teacher's.
            name: Of the training; the same one goes on from where it was interrupted.
            progress: Told after each step.

        Raises:
            ModelError: An operator cannot be trained, or the outputs do not fit.
            DataError: The labels do not fit the outputs.
        """
        return self._train(student, self.data, self._options, self._followed, name, "distilled", progress)

    def alone(self, student: ir.Model, name: str, progress: Progress) -> list[Decision]:
        """Train a student in place for as long, on the labels only; see `distil`."""
        loss = "auto" if self._options.loss == "distill" else self._options.loss
        options = self._options.model_copy(update={"alpha": 1.0, "loss": loss})
        return self._train(student, self.data, options, None, name, "trained", progress)

    def _train(
        self,
        student: ir.Model,
        data: Dataset,
        options: TrainOptions,
        teacher: Teacher | None,
        name: str,
        action: str,
        progress: Progress,
    ) -> list[Decision]:
        from modelkit.train.finetune import finetune

        validation = None
        if teacher is not None and self.unlabelled is not None:
            data, validation = self._joined(self.unlabelled, options)
        decisions, history = finetune(
            student,
            data,
            options,
            validation=validation,
            teacher=teacher,
            follow=self._follow,
            progress=progress,
            seed=self.config.seed,
            folder=self.work / name,
            action=action,
        )
        note(student, history)
        return [summary(history, action), *decisions]

    @property
    def _options(self) -> TrainOptions:
        options = self.config.training
        if self.config.time is None:
            return options
        return options.model_copy(update={"time_limit": self.config.time / self.trainings})

    def _joined(self, more: Dataset, options: TrainOptions) -> tuple[Dataset, Dataset | None]:
        """Training samples with the unlabelled ones behind, and the samples that choose the best epoch."""
        if not options.validation or self.data.count < SPLIT_FROM:
            return Joined([self.data, more]), self.data if options.validation else None
        shares = {"training": 1 - options.validation, "validation": options.validation}
        parts = split(self.data, parts=shares, seed=self.config.seed)
        return Joined([parts["training"], more]), parts["validation"]

    @property
    def _follow(self) -> Follow:
        config = self.config
        if config.method == "dist":
            return Follow("dist", config.numbers, (config.dist.between, config.dist.within))
        if config.method == "dkd":
            return Follow("dkd", config.numbers, (config.dkd.target, config.dkd.others))
        return Follow(values=config.numbers)

    @cached_property
    def _followed(self) -> Teacher:
        from modelkit.train.teacher import Ensemble, Teacher

        threads, others = self._options.threads, self.config.teachers
        session = session_of(self.teacher, threads=threads)
        first = Teacher(session, key=model_digest(self.teacher), folder=self.kept)
        if not others:
            return first
        more = [Teacher.load(path, threads=threads) for path in others]
        return Ensemble([first, *more], self.config.weights or [1.0] * (len(more) + 1), folder=self.kept)
