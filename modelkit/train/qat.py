"""Quantization-aware training: a quantized graph trained as what it computes, its integers written back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress, silent
from modelkit.train.config import QuantizationAware
from modelkit.train.history import History
from modelkit.train.teacher import check_target

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.train.teacher import Teacher


Trainer = Callable[["ir.Model", Mapping[str, np.ndarray], int, Progress], list[Decision]]
"""Trains a quantized graph in place: gets the graph, the float numbers behind its integers by initializer, the bits
of a weight, and what is told how far it is."""


def check_trainable(model: ir.Model) -> None:
    """Refuse a model that could not be trained once it is quantized, before any work is done.

    Args:
        model: The float model; it is only read.

    Raises:
        ModelError: It has an operator without a gradient, or cannot be run in torch; all is named.
    """
    from modelkit.train.program import compile_graph

    compile_graph(model, [], widen=True)


def train_quantized(
    model: ir.Model,
    data: Dataset,
    options: QuantizationAware,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    bits: int = 8,
    validation: Dataset | None = None,
    teacher: Teacher | None = None,
    progress: Progress = silent,
    seed: int = 0,
    folder: Path | None = None,
) -> tuple[list[Decision], History]:
    """Train the numbers behind a quantized graph's integers, in place. Weights that are zero stay zero.

    The graph before training counts among the epochs, so that on the validation samples the result is never worse
    than what it began with; where that is the best, the graph is left as it is.

    Args:
        model: A graph with QuantizeLinear and DequantizeLinear, as static quantization makes it.
        data: Samples to train on; never those that test the result.
        options: How to train.
        weights: The float numbers that integers were made of, by the initializer of the integers.
        bits: Bits of a weight, 2 to 8.
        validation: Samples that choose the best epoch; by default a part of `data`.
        teacher: The float model, to follow; needed without labels.
        progress: Told after each step.
        seed: Seed of everything random.
        folder: Where to keep a checkpoint, and to go on from the one of the same run.

    Returns:
        One decision for each initializer that changed, and what happened.

    Raises:
        DataError: There are neither labels nor a teacher, or the labels do not fit.
        ModelError: The graph has no integer weights of layers, or cannot be trained.
        UsageError: The device is not there.
        ResourceError: The disk is full, or the teacher cannot run.
    """
    check_target(data, teacher, "the float model")
    from modelkit.train.fakequant import fake_quantized
    from modelkit.train.loop import fit
    from modelkit.train.masks import zero_masks
    from modelkit.train.module import write_back

    progress("making the graph trainable", 0, 1)
    module = fake_quantized(model, weights, bits=bits, learn=options.ranges == "learned")
    history = fit(
        module,
        data,
        options,
        validation=validation,
        teacher=teacher,
        masks=zero_masks(module),
        by_loss=True,  # a few predictions more or less say little; the distance to the float model says more
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
    after = {name: model.graph.initializers[name].const_value.numpy() for name in changed}  # type: ignore[union-attr]
    return [_decision(name, before[name], after[name]) for name in changed], history


def _decision(name: str, old: np.ndarray, new: np.ndarray) -> Decision:
    """What became of an initializer: how many of its integers moved, or how far a step or a float did."""
    if new.dtype.kind in "iu":
        share = float((old != new).mean())
        return Decision(name, "trained", "rounding was part of the training", {"integers_changed": round(share, 4)})
    with np.errstate(divide="ignore", invalid="ignore"):
        change = float(np.linalg.norm(new.astype(np.float64) - old) / np.linalg.norm(old.astype(np.float64)))
    known = round(change, 6) if np.isfinite(change) else 0.0
    return Decision(name, "trained", "together with the integers", {"relative_change": known})
