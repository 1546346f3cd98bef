"""A student learns: from the teacher's outputs with labels or without, or, to compare, from the labels alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.data.join import Joined
from modelkit.data.split import SPLIT_FROM, split
from modelkit.decision import Decision
from modelkit.distill.config import DistillConfig
from modelkit.distill.pairing import pair
from modelkit.distill.teachers import Teachers
from modelkit.progress import Progress
from modelkit.train.config import TrainOptions
from modelkit.train.follow import Follow
from modelkit.train.history import note, summary
from modelkit.train.qat import Trainer


@dataclass
class Learning:
    """Trains students of one teacher, or several.

    Attributes:
        teachers: Whom they follow.
        config: The resolved options.
        data: What to train on.
        work: Where checkpoints are kept while a training runs.
        trainings: How many trainings share the time that there is.
        unlabelled: Further inputs, which only the teacher answers for.
    """

    teachers: Teachers
    config: DistillConfig
    data: Dataset
    work: Path
    trainings: int = 1
    unlabelled: Dataset | None = None

    def check(self) -> None:
        """Refuse teachers that cannot be run on the data, or do not agree in what they give.

        Raises:
            ModelError: Says which one, and what it takes or gives.
        """
        self.teachers.together().run(next(iter(self.data.batches(1))).inputs)

    def distill(self, student: ir.Model, name: str, progress: Progress) -> list[Decision]:
        """Train a student in place on what the teacher says.

        Args:
            student: A network whose outputs are like the teacher's.
            name: Of the training; the same one goes on from where it was interrupted.
            progress: Told after each step.

        Returns:
            A decision for the whole, for each pair of tensors, and for each weight.

        Raises:
            ModelError: An operator cannot be trained, or outputs or paired tensors do not fit.
            DataError: The labels do not fit the outputs.
        """
        from modelkit.train.finetune import finetune

        options, (data, validation) = self._options, self._samples()
        follow, paired = self._follow(student)
        decisions, history = finetune(
            student,
            data,
            options,
            validation=validation,
            teacher=self.teachers.together([hint.teacher for hint in follow.hints]),
            follow=follow,
            progress=progress,
            seed=self.config.seed,
            folder=self.work / name,
            action="distilled",
        )
        note(student, history)
        return [summary(history, "distilled"), *paired, *decisions]

    def alone(self, student: ir.Model, name: str, progress: Progress) -> list[Decision]:
        """Train a student in place for as many steps on the labels only; see `distill`."""
        from modelkit.train.finetune import finetune

        options = self._options
        # Where the teacher answers for more samples, an epoch of the others is shorter.
        more = 1 + (0 if self.unlabelled is None else self.unlabelled.count / self.data.count)
        changes: dict[str, object] = {"alpha": 1.0, "epochs": round(more * options.epochs)}
        changes["patience"] = round(more * options.patience)
        if options.loss == "distill":
            changes["loss"] = "auto"
        options = options.model_copy(update=changes)
        decisions, history = finetune(
            student,
            self.data,
            options,
            progress=progress,
            seed=self.config.seed,
            folder=self.work / name,
            action="trained",
        )
        note(student, history)
        return [summary(history, "trained"), *decisions]

    def rounded(self, taught: bool, name: str) -> Trainer:
        """Return what trains a quantized student in place: on what the teacher says, or on the labels only.

        Args:
            taught: Whether the teacher is followed.
            name: Of the training.
        """

        def train(
            model: ir.Model, weights: Mapping[str, np.ndarray], bits: int, progress: Progress
        ) -> list[Decision]:
            from modelkit.train.qat import train_quantized

            options, (data, validation) = self.config.qat, self._samples() if taught else (self.data, None)
            decisions, history = train_quantized(
                model,
                data,
                options if taught else options.model_copy(update={"alpha": 1.0, "loss": "auto"}),
                weights=weights,
                bits=bits,
                validation=validation,
                teacher=self.teachers.together() if taught else None,
                progress=progress,
                seed=self.config.seed,
                folder=self.work / f"{name} rounded",
            )
            note(model, history)
            return [summary(history, "trained with the rounding"), *decisions]

        return train

    @property
    def _options(self) -> TrainOptions:
        options = self.config.training
        if self.config.time is None:
            return options
        return options.model_copy(update={"time_limit": self.config.time / self.trainings})

    def _samples(self) -> tuple[Dataset, Dataset | None]:
        """What to train on, the unlabelled samples behind; and what chooses the best epoch, where that is settled."""
        share, more = self.config.training.validation, self.unlabelled
        if more is None:
            return self.data, None
        if not share or self.data.count < SPLIT_FROM:
            return Joined([self.data, more]), self.data if share else None
        sizes = {"training": 1 - share, "validation": share}
        parts = split(self.data, parts=sizes, seed=self.config.seed)
        if more.count < SPLIT_FROM:
            return Joined([parts["training"], more]), parts["validation"]
        rest = split(more, parts=sizes, seed=self.config.seed)
        training, validation = (Joined([parts[name], rest[name]]) for name in sizes)
        return training, validation

    def _follow(self, student: ir.Model) -> tuple[Follow, list[Decision]]:
        config = self.config
        match config.method:
            case "dist":
                return Follow("dist", config.numbers, (config.dist.between, config.dist.within)), []
            case "dkd":
                return Follow("dkd", config.numbers, (config.dkd.target, config.dkd.others)), []
            case "features" | "attention" as kind:
                features = config.features
                hints, paired = pair(
                    student, self.teachers.model, self.data, kind=kind, named=features.pairs, most=features.most
                )
                return Follow(values=config.numbers, hints=tuple(hints), hint_weight=features.weight), paired
        return Follow(values=config.numbers), []
