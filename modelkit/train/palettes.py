"""Trained palettes: weights that share a few values go on learning without ceasing to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress, silent
from modelkit.train.config import TrainOptions
from modelkit.train.history import History
from modelkit.train.teacher import check_target

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.train.teacher import Teacher

Share = Callable[["ir.Model"], list[Decision]]
"""Lets the weights of a model take a few values, in place."""


def train_palettes(
    model: ir.Model,
    data: Dataset,
    options: TrainOptions,
    *,
    floats: Mapping[str, np.ndarray],
    validation: Dataset | None = None,
    teacher: Teacher | None = None,
    progress: Progress = silent,
    seed: int = 0,
    folder: Path | None = None,
) -> tuple[list[Decision], History]:
    """Train weights that share values, and these values, in place. Weights that are zero stay zero.

    The model before training counts among the epochs, so that on the validation samples the result is never worse.

    Args:
        model: A graph whose weights take a few values.
        data: Samples to train on; never those that test the result.
        options: How to train.
        floats: What the shared values were made of, by initializer: numbers that start near another value may move
            there.
        validation: Samples that choose the best epoch; by default a part of `data`.
        teacher: A model to follow; needed without labels.
        progress: Told after each step.
        seed: Seed of everything random.
        folder: Where to keep a checkpoint, and to go on from the one of the same run.

    Returns:
        One decision for each initializer that changed, and what happened.

    Raises:
        DataError: There are neither labels nor a teacher, or the labels do not fit.
        ModelError: The graph cannot be trained.
        UsageError: The device is not there.
        ResourceError: The disk is full, or the teacher cannot run.
    """
    check_target(data, teacher, "the original model")
    from modelkit.train.loop import fit
    from modelkit.train.masks import zero_masks
    from modelkit.train.module import write_back
    from modelkit.train.shared import shared_module

    progress("making the graph trainable", 0, 1)
    module = shared_module(model, floats)
    history = fit(
        module,
        data,
        options,
        validation=validation,
        teacher=teacher,
        masks=zero_masks(module),
        by_loss=True,
        progress=progress,
        seed=seed,
        folder=folder,
    )
    if not history.best:
        return [], history
    before = {
        name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value
    }
    changed = write_back(module, model)
    return [_decision(name, before[name], _array(model, name), name in floats) for name in changed], history


def _array(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def _decision(name: str, old: np.ndarray, new: np.ndarray, shared: bool) -> Decision:
    if not shared:
        return Decision(name, "trained", "together with the shared values")
    ranks = [np.unique(array, return_inverse=True)[1].reshape(-1) for array in (old, new)]
    moved = round(float((ranks[0] != ranks[1]).mean()), 4)
    numbers: dict[str, float | int | str] = {"values": len(np.unique(new)), "moved": moved}
    return Decision(name, "trained", "its shared values, and which weights take which", numbers)
