"""Where a student comes from: cut out of the teacher and repaired, or given as a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from modelkit.channels.cutting import prune_channels, ways
from modelkit.channels.survey import Survey
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.distill.config import DistillConfig
from modelkit.distill.matching import match
from modelkit.errors import ModelError
from modelkit.graph.facts import describe
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.progress import Progress, silent
from modelkit.report.units import number, percent

_ELSE = "--student FILE gives another network to learn from this teacher"


@dataclass(frozen=True)
class Student:
    """A network before it learns.

    Attributes:
        model: The network; whoever trains it takes a copy.
        decisions: How it was made.
    """

    model: ir.Model
    decisions: list[Decision]


class Source(Protocol):
    """Where students come from."""

    def check(self) -> None:
        """Refuse what no student can come of, before any work is done.

        Raises:
            UsageError: An option is wrong.
            ModelError: A network does not fit or cannot be trained; the hint names the way out.
        """

    def make(self, ratio: float, progress: Progress = silent) -> Student:
        """Return a student.

        Args:
            ratio: Share of the teacher that it keeps, in (0, 1]; of no matter where the network is given.
            progress: Told how far the work is.

        Raises:
            ModelError: It cannot be that small.
        """

    def name(self, ratio: float) -> str:
        """What a table calls a student."""


class Deriver:
    """Cuts students out of a teacher: channels go, and what is left makes up for them on data.

    Args:
        teacher: The normalised teacher; it stays as it is.
        config: `structure`, `calibration` and the patterns are read.
        data: Inputs, labels are not needed.
    """

    def __init__(self, teacher: ir.Model, config: DistillConfig, data: Dataset) -> None:
        self._teacher, self._config, self._data = teacher, config, data
        self._made: dict[float, Student] = {}

    def check(self) -> None:
        """See `Source.check`."""
        try:
            if self._config.ratio != 1:
                self._survey.check(ways(self._config, self._data)[0].importance)
            check_trainable(self._teacher)
        except ModelError as error:
            raise ModelError(f"no student can be derived from this teacher: {error.message}", _ELSE) from error

    def make(self, ratio: float, progress: Progress = silent) -> Student:
        """See `Source.make`."""
        if ratio not in self._made:
            self._made[ratio] = self._cut(ratio, progress)
        return self._made[ratio]

    def name(self, ratio: float) -> str:
        """See `Source.name`."""
        if ratio == 1:
            return "the teacher's own network"
        target = self._config.structure.target
        return f"{percent(ratio)} of the {'time' if target == 'latency' else target}"

    def _cut(self, ratio: float, progress: Progress) -> Student:
        model = self._teacher.clone()
        if ratio == 1:
            return Student(model, [Decision("model", "copied", "the student is the teacher's own network")])
        way = ways(self._config, self._data)[0]
        try:
            decisions = prune_channels(
                model, self._config, 1 - ratio, self._data, way=way, survey=self._survey, progress=progress
            )
        except ModelError as error:
            hint = f"ask for a larger --ratio, lower structure.keep_at_least or structure.multiple_of, or {_ELSE}"
            raise ModelError(error.message, hint) from error
        return Student(model, decisions)

    @cached_property
    def _survey(self) -> Survey:
        """What students of all sizes share: they start from the same weights."""
        return Survey(self._teacher.clone(), self._config, self._data)


class Given:
    """A network from a file, trained or not, with the teacher's inputs and outputs.

    BatchNormalization stays in it while it is trained, which a network that is not trained yet needs.

    Args:
        path: An ONNX file.
        teacher: The normalised teacher.
        allow_larger: Whether it may have more parameters than the teacher.
    """

    def __init__(self, path: Path, teacher: ir.Model, *, allow_larger: bool) -> None:
        self._path, self._teacher, self._allow_larger = path, teacher, allow_larger

    def check(self) -> None:
        """See `Source.check`."""
        student = self._student.model
        own, theirs = describe(student).parameters, describe(self._teacher).parameters
        if own > theirs and not self._allow_larger:
            raise ModelError(
                f"the student has {number(own)} parameters, more than the teacher's {number(theirs)}",
                "--allow-larger takes it all the same",
            )
        check_trainable(student)

    def make(self, ratio: float, progress: Progress = silent) -> Student:
        """See `Source.make`."""
        return self._student

    def name(self, ratio: float) -> str:
        """See `Source.name`."""
        return self._path.name

    @cached_property
    def _student(self) -> Student:
        model = load(self._path).model
        decisions = normalise(model, batchnorm=False)
        return Student(model, [*decisions, *match(model, self._teacher)])


def check_trainable(model: ir.Model) -> None:
    """Refuse a network that has no gradient.

    Raises:
        ModelError: An operator cannot be trained.
    """
    from modelkit.train.module import to_torch

    to_torch(model)
