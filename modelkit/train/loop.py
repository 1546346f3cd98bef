"""The one training loop: what prunes, distils or searches trains by `fit`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from modelkit.data.dataset import Dataset
from modelkit.data.shuffle import HeldDataset, hold
from modelkit.data.split import SPLIT_FROM, split
from modelkit.progress import Progress, silent
from modelkit.train.augment import Augmenter
from modelkit.train.config import TrainOptions
from modelkit.train.device import settings, tensor
from modelkit.train.feed import Feed, real_outputs
from modelkit.train.follow import Follow
from modelkit.train.history import History
from modelkit.train.masks import Masks
from modelkit.train.objective import plan_objective
from modelkit.train.run import Run
from modelkit.train.state import run_key
from modelkit.train.stepper import StepHook, Stepper
from modelkit.train.teacher import Teacher

__all__ = ["StepHook", "fit"]

# Samples that show what the outputs are like: probabilities or logits, and how far values spread.
_PROBE = 512


def fit(
    module: nn.Module,
    data: Dataset,
    options: TrainOptions,
    *,
    validation: Dataset | None = None,
    teacher: Teacher | None = None,
    follow: Follow = Follow(),  # noqa: B008 - frozen
    masks: Mapping[str, np.ndarray] | None = None,
    on_step: StepHook | None = None,
    by_loss: bool = False,
    progress: Progress = silent,
    seed: int = 0,
    folder: Path | None = None,
    until: int | None = None,
) -> History:
    """Train a module in place and leave it with the best weights that were seen.

    The weights before training count among them, so the result is never worse than the start on the validation
    samples. The same module, data, options and seed on the same machine give the same bytes, whether the run was
    interrupted and resumed or not (a time limit apart).

    Args:
        module: Takes a mapping from input names to tensors and returns one from output names to tensors, batch
            first. It ends on the CPU.
        data: Samples to train on; never those that test the result.
        options: How to train.
        validation: Samples that choose the best epoch; by default a part of `data` (see `options.validation`).
        teacher: A model to follow; needed without labels. With labels `options.alpha` weighs the two.
        follow: How the teacher is followed.
        masks: Name of a weight -> array of its shape; weights where it is 0 stay exactly 0.
        on_step: See `StepHook`, such as a schedule of sparsity.
        by_loss: Whether the loss alone decides which epoch is best, instead of the metric and then the loss.
        progress: Told after each step, in steps.
        seed: Seed of the split, the order and all variation, at least 0.
        folder: Where to keep a checkpoint, and to go on from the one of the same run that is there.
        until: The last epoch for now; with a folder, a later call goes on from there. None for all.

    Returns:
        What happened, epoch by epoch.

    Raises:
        DataError: The labels do not fit the outputs, or there is nothing to learn from.
        ModelError: No weight or output can be trained.
        UsageError: A mask fits no weight, or the device is not there.
        ResourceError: The disk is full, or the teacher cannot run.
    """
    notes: list[str] = []
    parts = _divide(data, validation, options, seed, notes)
    with settings(options) as device, tempfile.TemporaryDirectory(prefix="modelkit-") as scratch:
        try:
            module.to(device)
            held = [hold(part, _subfolder(Path(scratch), number)) for number, part in enumerate(parts)]
            zeros = Masks(module, masks)
            key = "" if folder is None else _key(module, parts, options, teacher, follow, zeros, seed)
            run = _prepare(module, held, options, teacher, follow, zeros, seed, device, progress)
            run.on_step, run.by_loss, run.folder, run.key, run.until = on_step, by_loss, folder, key, until
            return run.go(notes)
        finally:
            module.to("cpu").eval()


def _divide(
    data: Dataset, validation: Dataset | None, options: TrainOptions, seed: int, notes: list[str]
) -> list[Dataset]:
    """Return the training samples and, where there are any, the validation samples."""
    if validation is not None:
        return [data, validation]
    if not options.validation:
        return [data]
    if data.count < SPLIT_FROM:
        notes.append(f"{data.count} samples are too few to set some apart for validation: the last weights were kept")
        return [data]
    parts = split(data, parts={"training": 1 - options.validation, "validation": options.validation}, seed=seed)
    return [parts["training"], parts["validation"]]


def _subfolder(folder: Path, number: int) -> Path:
    made = folder / str(number)
    made.mkdir()
    return made


def _key(
    module: nn.Module,
    parts: list[Dataset],
    options: TrainOptions,
    teacher: Teacher | None,
    follow: Follow,
    masks: Masks,
    seed: int,
) -> str:
    facts = {
        "options": options.model_dump(mode="json", exclude={"time_limit", "threads", "device"}),
        "data": [part.fingerprint() for part in parts],
        "teacher": None if teacher is None else teacher.key or "unnamed",
        "follow": asdict(follow),
        "masks": {name: np.packbits(mask).tobytes().hex() for name, mask in masks.arrays.items()},
        "seed": seed,
    }
    return run_key(module, facts)


def _prepare(
    module: nn.Module,
    held: list[HeldDataset],
    options: TrainOptions,
    teacher: Teacher | None,
    follow: Follow,
    masks: Masks,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> Run:
    """Look at a first batch and decide what is minimised."""
    first = next(iter(held[0].batches(min(_PROBE, held[0].count))))
    augment = Augmenter(first.inputs, first.axes, options, seed)
    module.eval()
    with torch.no_grad():
        inputs = {name: tensor(array, device) for name, array in first.inputs.items()}
        outputs = real_outputs(module, inputs, first.valid)
    floats = {name: value.float() if value.is_floating_point() else value for name, value in outputs.items()}
    arrays = {name: value.cpu().numpy() for name, value in floats.items() if value.ndim}
    if options.loss != "distill" and options.alpha == 1 and held[0].has_labels:
        teacher = None
    wanted = None
    if teacher is not None:
        wanted = {name: array[: first.valid] for name, array in teacher.run(first.inputs).items() if array.ndim}
    objective = plan_objective(arrays, held[0].labels, wanted, options, follow)
    feeds = []
    batch = options.batch_for(held[0].count)
    for number, part in enumerate(held):
        live = number == 0 and augment.changes
        targets = None
        if teacher is not None and (objective.soft or objective.hints):
            targets = teacher.targets(part, batch, live=live, progress=progress)
        feeds.append(Feed(part, batch, targets, device, seed))
    validation = feeds[1] if len(feeds) > 1 else None
    stepper = Stepper(module, objective, options, masks)
    return Run(stepper, feeds[0], validation, augment, options, seed, progress)
