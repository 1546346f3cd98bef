"""Pruning in steps: a little more each time, with fine-tuning in between.

The sparsity follows s_t = s_f + (s_i - s_f) (1 - t/T)³: much at first, while there is much to spare, and little at
the end (Zhu & Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878, equation 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import UsageError
from modelkit.progress import Progress, silent
from modelkit.prune.config import Method, PruneConfig
from modelkit.prune.weights.goal import Goal
from modelkit.prune.weights.layerwise import prune_by_obs
from modelkit.prune.weights.sparse import prunable_layers, prune_by_magnitude, prune_by_wanda, sparsity_of

Finetune = Callable[[ir.Model, Mapping[str, np.ndarray]], list[Decision]]


def cubic(start: float, end: float, steps: int) -> list[float]:
    """Return the sparsity after each step.

    Args:
        start: Share of zeros at the beginning, in [0, 1).
        end: Share of zeros after the last step; a start above it stays.
        steps: At least 1.
    """
    start = min(start, end)
    return [end + (start - end) * (1 - step / steps) ** 3 for step in range(1, steps)] + [end]


def steps_of(config: PruneConfig) -> int:
    """How many steps are taken: a threshold or N:M takes one."""
    return config.steps if Goal.of(config).counts else 1


def prune_gradually(
    model: ir.Model,
    config: PruneConfig,
    data: Dataset | None,
    finetune: Finetune | None = None,
    *,
    method: Method = "magnitude",
    progress: Progress = silent,
) -> list[Decision]:
    """Reach the sparsity in ``config.steps`` steps, in place; a threshold or N:M takes one.

    Args:
        model: A normalised model.
        config: Says how many, and of which layers.
        data: Inputs; needed by methods that look at them.
        finetune: Trains the model in place after each step. It is given, for each pruned weight by name, the mask
            in the weight's shape, True where numbers may change; its decisions are added.
        method: "magnitude", "wanda" or "obs" ("auto" is magnitude).
        progress: Told how far each step is.

    Returns:
        A decision for every float tensor, as it is after the last step, and those of the fine-tuning.

    Raises:
        UsageError: The method needs data and there is none.
        DataError: An activation is infinite or NaN.
        ModelError: A layer would lose all its weights.
    """
    layers, _ = prunable_layers(model, config)
    whole = Goal.of(config)
    shares = cubic(sparsity_of(layers), whole.sparsity, steps_of(config)) if whole.counts else [whole.sparsity]
    before: dict[str, float | int | str] = {}
    decisions: list[Decision] = []
    for share in shares:
        found = _once(model, config, data, replace(whole, sparsity=share), method, progress)
        if not before:
            before = {d.target: d.numbers["zeros_before"] for d in found if "zeros_before" in d.numbers}
        decisions = [
            replace(d, numbers={**d.numbers, "zeros_before": before[d.target]}) if d.target in before else d
            for d in found
        ]
        if finetune is not None:
            pruned = {d.target for d in decisions if d.action == "pruned"}
            masks = {layer.name: layer.array() != 0 for layer in layers if layer.name in pruned}
            decisions += finetune(model, masks)
    return decisions


def _once(
    model: ir.Model, config: PruneConfig, data: Dataset | None, goal: Goal, method: Method, progress: Progress
) -> list[Decision]:
    if method in ("auto", "magnitude"):
        return prune_by_magnitude(model, config, goal)
    if data is None:
        raise needs_data(method)
    prune = prune_by_wanda if method == "wanda" else prune_by_obs
    return prune(model, config, data, goal, progress)


def needs_data(method: Method) -> UsageError:
    """Return the error for a method that looks at inputs when there are none."""
    return UsageError(
        f"method {method} looks at what flows through the model and needs data",
        "give some inputs with --data (labels are not needed), or use --method magnitude",
    )
