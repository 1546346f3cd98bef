"""Pruning in the course of a training, in which weights that were taken out too early come back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights.goal import check_alive
from modelkit.prune.weights.sparse import prunable_layers
from modelkit.train.config import TrainOptions
from modelkit.train.history import note, summary
from modelkit.train.teacher import original_teacher


def prune_in_training(
    model: ir.Model,
    config: PruneConfig,
    data: Dataset,
    options: TrainOptions,
    followed: ir.Model,
    progress: Progress = silent,
) -> list[Decision]:
    """Reach the sparsity by magnitude while the model trains, in place.

    Args:
        model: A normalised model.
        config: Says how many, and of which layers; ``scope`` global ranks all as one.
        data: What to train on.
        options: How to train.
        followed: Whom to follow beside the labels.
        progress: Told after each step.

    Returns:
        A decision for every float tensor, pruned or kept, and one for the training.

    Raises:
        UsageError: A pattern of names matches nothing.
        ModelError: The graph cannot be trained, or a layer would lose all its weights.
    """
    from modelkit.train.sparse import train_sparse

    layers, kept = prunable_layers(model, config)
    before = {layer.name: layer.array() for layer in layers}
    history = train_sparse(
        model,
        data,
        options,
        names=list(before),
        sparsity=config.sparsity or 0.0,
        together=config.scope == "global",
        teacher=original_teacher(followed, options, data),
        progress=progress,
        seed=config.seed,
    )
    note(model, history)
    found = []
    for layer in layers:
        array = layer.array()
        check_alive(layer.name, before[layer.name], array != 0)
        found.append(
            Decision(
                layer.name,
                "pruned",
                "smallest magnitudes in the course of the training",
                {
                    "weights": int(array.size),
                    "zeros_before": round(float((before[layer.name] == 0).mean()), 4),
                    "zeros": round(float((np.asarray(array) == 0).mean()), 4),
                },
            )
        )
    return [*sorted([*kept, *found], key=lambda each: each.target), summary(history, "trained")]
