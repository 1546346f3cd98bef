"""Where a student comes from: cut out of the teacher and repaired, or given as a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from modelkit.channels.cutting import prune_channels, ways
from modelkit.channels.survey import Survey
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.distill.config import DistillConfig
from modelkit.errors import ModelError
from modelkit.progress import Progress, silent
from modelkit.report.units import percent

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
        """Refuse a teacher that nothing can be cut out of, or whose copy cannot be trained.

        Raises:
            UsageError: A pattern matches nothing, or the importance needs what is not there.
            ModelError: No channel can go, or an operator cannot be trained; the hint names the way out.
        """
        from modelkit.train.module import to_torch

        try:
            self._survey.check(ways(self._config, self._data)[0].importance)
            to_torch(self._teacher)
        except ModelError as error:
            raise ModelError(f"no student can be derived from this teacher: {error.message}", _ELSE) from error

    def make(self, ratio: float, progress: Progress = silent) -> Student:
        """Cut a student out.

        Args:
            ratio: Share of `structure.target` that it keeps, in (0, 1].
            progress: Told how far the work is.

        Raises:
            ModelError: It cannot be that small.
        """
        if ratio not in self._made:
            self._made[ratio] = self._cut(ratio, progress)
        return self._made[ratio]

    def name(self, ratio: float) -> str:
        """What a table calls a student."""
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
