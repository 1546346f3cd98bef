"""A teacher assistant: a network between teacher and student learns first, and the student learns from it.

Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant" (2019): a student far smaller than its
teacher follows one of a size between better than the teacher itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.distill.config import DistillConfig
from modelkit.distill.learning import Learning
from modelkit.distill.student import Deriver
from modelkit.distill.teachers import Teachers
from modelkit.progress import Progress


@dataclass
class Assistant:
    """Stands between a teacher and its students.

    Attributes:
        deriver: Cuts the assistant out of the teacher.
        learning: Trains it.
        config: `assistant` is read.
    """

    deriver: Deriver
    learning: Learning
    config: DistillConfig
    _made: dict[float, tuple[ir.Model, list[Decision]]] = field(default_factory=dict, init=False)

    def distill(self, student: ir.Model, ratio: float, name: str, progress: Progress) -> list[Decision]:
        """Train a student in place on what the assistant says; see `Learning.distill`.

        Args:
            student: The student.
            ratio: Share of the teacher that it is.
            name: Of the training.
            progress: Told after each step.
        """
        model, decisions = self._assistant(ratio, progress)
        config = self.config.model_copy(update={"teachers": [], "weights": None})
        teachers = Teachers(model, config, self.learning.teachers.kept)
        learned = replace(self.learning, teachers=teachers).distill(student, name, progress)
        return [*decisions, *learned]

    def _assistant(self, ratio: float, progress: Progress) -> tuple[ir.Model, list[Decision]]:
        """The trained assistant, and one decision for it."""
        given = self.config.assistant
        # Halfway by ratio: both steps are as large.
        share = given if isinstance(given, float) else round(math.sqrt(ratio), 3)
        if share not in self._made:
            model = self.deriver.make(share, progress).model.clone()
            whole = self.learning.distill(model, f"assistant {share:g}", progress)[0]
            said = f"{self.deriver.name(share)} of the teacher, whom the student follows"
            self._made[share] = model, [Decision("assistant", "distilled", f"{said}; {whole.reason}", whole.numbers)]
        return self._made[share]
