"""Fine-tuning after a cut: on labels together with the original's outputs, or on the original's outputs alone."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import UsageError
from modelkit.progress import Progress
from modelkit.train.config import FineTune
from modelkit.train.history import note, summary
from modelkit.train.teacher import original_teacher


@dataclass
class Tuner:
    """Trains pruned copies of one model.

    Attributes:
        original: The model before pruning, which the pruned ones follow.
        options: How to train.
        data: What to train on.
        seed: Seed of everything random.
    """

    original: ir.Model
    options: FineTune
    data: Dataset
    seed: int

    def __call__(self, model: ir.Model, progress: Progress, *, epochs: int | None = None) -> list[Decision]:
        """Train a pruned model in place; weights that are zero stay zero.

        Args:
            model: The model after the cut.
            progress: Told after each step.
            epochs: Passes over the data; by default those of the options.

        Raises:
            ModelError: The graph has an operator that cannot be trained.
        """
        from modelkit.train.finetune import finetune

        options = self.options if epochs is None else self.options.model_copy(update={"epochs": epochs})
        decisions, history = finetune(
            model,
            self.data,
            options,
            teacher=original_teacher(self.original, options, self.data),
            keep_zeros=True,
            progress=progress,
            seed=self.seed,
        )
        note(model, history)
        return [summary(history, "fine-tuned"), *decisions]

    def share_out(self, steps: int) -> list[int]:
        """Divide the epochs among steps, at least one each; the last, which ends at the target, gets half or more."""
        each = max(1, self.options.epochs // (2 * steps - 2)) if steps > 1 else 0
        return [each] * (steps - 1) + [max(1, self.options.epochs - each * (steps - 1))]


def tuner_for(original: ir.Model, options: FineTune, data: Dataset | None, seed: int) -> Tuner | None:
    """Return what fine-tunes, or None where the options ask for none.

    Raises:
        UsageError: There is no data, or it has no labels and the options do not ask for self-distillation.
    """
    if options.epochs == 0:
        return None
    if data is None:
        raise UsageError("fine-tuning needs data", "give the training samples with --data")
    if not data.has_labels and options.loss != "distill":
        name = data.name if data.path is None else data.path.name
        raise UsageError(
            f"fine-tuning needs labels, and '{name}' has none",
            "--set finetune.loss=distill learns from the original's own outputs instead",
        )
    return Tuner(original, options, data, seed)
