"""Fine-tunes a graph in memory: made trainable, trained, its new weights written back, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress, silent
from modelkit.train.config import TrainOptions
from modelkit.train.follow import Follow
from modelkit.train.history import History
from modelkit.train.teacher import check_target

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.train.module import GraphModule
    from modelkit.train.stepper import StepHook
    from modelkit.train.teacher import Teacher


def finetune(
    model: ir.Model,
    data: Dataset,
    options: TrainOptions,
    *,
    validation: Dataset | None = None,
    teacher: Teacher | None = None,
    follow: Follow = Follow(),  # noqa: B008 - frozen
    masks: Mapping[str, np.ndarray] | None = None,
    keep_zeros: bool = False,
    on_step: StepHook | None = None,
    progress: Progress = silent,
    seed: int = 0,
    folder: Path | None = None,
    until: int | None = None,
    action: str = "fine-tuned",
) -> tuple[list[Decision], History]:
    """Train a model's weights in place.

    Args:
        model: The graph; only values of its float initializers change.
        data: Samples to train on; never those that test the result.
        options: How to train.
        validation: Samples that choose the best epoch; by default a part of `data`.
        teacher: The original, to follow; needed without labels.
        follow: How the teacher is followed.
        masks: Name of an initializer -> array of its shape; what is 0 there stays exactly 0.
        keep_zeros: Whether all zeros of weights with two or more dimensions stay, besides those of `masks`.
        on_step: Called after each step, may tighten the masks (see `modelkit.train.stepper.StepHook`).
        progress: Told after each step.
        seed: Seed of everything random.
        folder: Where to keep a checkpoint, and to go on from the one of the same run.
        until: The last epoch for now; see `modelkit.train.loop.fit`.
        action: What the decisions call it.

    Returns:
        One decision for each initializer that changed, and what happened.

    Raises:
        DataError: There are neither labels nor a teacher, or the labels do not fit.
        ModelError: The graph has an operator that cannot be trained, or no weight or output to train.
        UsageError: A mask fits no initializer, or the device is not there.
        ResourceError: The disk is full, or the teacher cannot run.
    """
    check_target(data, teacher, "the original model")
    from modelkit.train.hints import Hinted, with_hints
    from modelkit.train.loop import fit
    from modelkit.train.masks import named_weights, zero_masks
    from modelkit.train.module import to_torch, write_back

    progress("making the graph trainable", 0, 1)
    module: GraphModule | Hinted
    if follow.hints and teacher is not None:
        inputs = next(iter(data.batches(1))).inputs
        module = with_hints(model, follow.hints, inputs, teacher.run(inputs), seed)
    else:
        module = to_torch(model)
    kept = dict(zero_masks(module)) if keep_zeros else {}
    for name, mask in (masks or {}).items():
        kept[name] = np.asarray(mask).astype(bool) & kept[name] if name in kept else mask
    before = {name: weight.detach().numpy().copy() for name, weight in named_weights(module).items()}
    history = fit(
        module,
        data,
        options,
        validation=validation,
        teacher=teacher,
        follow=follow,
        masks=kept,
        on_step=on_step,
        progress=progress,
        seed=seed,
        folder=folder,
        until=until,
    )
    changed = write_back(module.graph if isinstance(module, Hinted) else module, model)
    after = named_weights(module)
    weights = [name for name in changed if name in before]
    decisions = [_decision(name, action, before[name], after[name].detach().numpy(), history) for name in weights]
    return decisions, history


def _decision(name: str, action: str, old: np.ndarray, new: np.ndarray, history: History) -> Decision:
    size = float(np.linalg.norm(old.astype(np.float64)))
    change = float(np.linalg.norm(new.astype(np.float64) - old.astype(np.float64)))
    return Decision(
        name,
        action,
        f"weights of epoch {history.best} of {history.epochs[-1].number}, by {history.loss}",
        {
            "relative_change": round(change / size, 6) if size else 0.0,
            "zeros": int(new.size - np.count_nonzero(new)),
        },
    )
