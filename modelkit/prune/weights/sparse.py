"""Unstructured pruning of a model without data or by one look at it: single weights become zero, shapes stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.linear.grams import collect
from modelkit.linear.matrix import Layer, layer_of, readings_of
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.prune.select import prunable_weights
from modelkit.prune.weights import magnitude, wanda
from modelkit.prune.weights.goal import Goal, check_alive


def prunable_layers(model: ir.Model, config: PruneConfig) -> tuple[list[Layer], list[Decision]]:
    """Return the weights that may lose numbers as layers, and a decision for each float tensor that stays as it is.

    Raises:
        UsageError: A pattern of names matches nothing.
    """
    uses, kept = prunable_weights(model, config.include, config.exclude)
    return [layer_of(use) for use in uses], kept


def prune_by_magnitude(model: ir.Model, config: PruneConfig, goal: Goal | None = None) -> list[Decision]:
    """Set the smallest weights to zero, in place.

    Args:
        model: A normalised model.
        config: Says how many, and of which layers.
        goal: Overrides what the config says of how many.

    Returns:
        A decision for every float tensor, pruned or kept.

    Raises:
        ModelError: A layer would lose all its weights.
    """
    layers, decisions = prunable_layers(model, config)
    goal = goal or Goal.of(config)
    scores = [magnitude.scores(layer.matrices(layer.array())) for layer in layers]
    for layer, score, own in zip(layers, scores, goal.for_each(scores), strict=True):
        decisions.append(apply(layer, own.keep(layer, score), "smallest magnitudes"))
    return sorted(decisions, key=lambda decision: decision.target)


def prune_by_wanda(
    model: ir.Model, config: PruneConfig, data: Dataset, goal: Goal | None = None, progress: Progress = silent
) -> list[Decision]:
    """Set the weights that move their layer's output least to zero, in place.

    The inputs of all layers are those of the model before pruning, seen in one pass: on the samples that was better
    than pruning front to back, and it is faster. Layers whose inputs cannot be observed are pruned by magnitude.

    Args:
        model: A normalised model.
        config: Says how many, and of which layers.
        data: Inputs.
        goal: Overrides what the config says of how many.
        progress: Told how far the pass is.

    Returns:
        A decision for every float tensor, pruned or kept.

    Raises:
        DataError: An activation is infinite or NaN.
        ModelError: A layer would lose all its weights.
    """
    layers, decisions = prunable_layers(model, config)
    goal = goal or Goal.of(config)
    scores = wanda_scores(model, layers, data, config, progress)
    goals = goal.for_each([comparable(score) for score in scores])
    for layer, score, own in zip(layers, scores, goals, strict=True):
        why = readings_of(layer, model)
        reason = f"by magnitude: {why}" if isinstance(why, str) else "smallest |w| times norm of the input"
        mask = own.keep(layer, score, by_row=not isinstance(why, str))
        decisions.append(apply(layer, mask, reason, output_energy_kept=_share(np.square(score), mask)))
    return sorted(decisions, key=lambda decision: decision.target)


def wanda_scores(
    model: ir.Model, layers: Sequence[Layer], data: Dataset, config: PruneConfig, progress: Progress = silent
) -> list[np.ndarray]:
    """Return each layer's scores; those of layers that cannot be observed are magnitudes."""
    limit = config.calibration.samples
    grams = collect(model, layers, data, limit=limit, full=False, progress=progress)
    found = []
    for layer in layers:
        weights = layer.matrices(layer.array())
        gram = grams.get(layer.name)
        found.append(magnitude.scores(weights) if gram is None else wanda.scores(weights, gram.squares))
    return found


def comparable(scores: np.ndarray) -> np.ndarray:
    """Scale scores so that those of different layers compare: their squares are shares of the layer's sum."""
    return scores / max(float(np.sqrt(np.square(scores, dtype=np.float64).sum())), 1e-300)


def apply(
    layer: Layer, mask: np.ndarray, reason: str, weights: np.ndarray | None = None, **numbers: float
) -> Decision:
    """Write a layer's new weights, zero where the mask is False.

    Args:
        layer: The layer.
        mask: ``[groups, outputs, inputs]``, True where a number stays.
        reason: How the zeros were chosen.
        weights: New weights in the same shape; the old ones by default.
        numbers: More figures for the decision.

    Raises:
        ModelError: Nothing would be left.
    """
    old = layer.use.value.const_value
    assert old is not None
    before = layer.array()
    kept = layer.stored(mask)
    check_alive(layer.name, before, kept)
    after = before if weights is None else layer.stored(weights).astype(before.dtype)
    after = np.where(kept, after, np.zeros((), before.dtype))
    if not np.isfinite(after.astype(np.float32)).all():
        raise ModelError(f"the weights left of '{layer.name}' do not fit into {old.dtype.name.lower()}")
    figures: dict[str, float | int | str] = {
        "weights": int(before.size),
        "zeros_before": round(_share_of_zeros(before), 4),
        "zeros": round(_share_of_zeros(after), 4),
        **({"energy_kept": round(_energy(after) / max(_energy(before), 1e-30), 4)} if weights is None else {}),
        **{name: round(number, 4) for name, number in numbers.items()},
    }
    if mask.all():
        return Decision(layer.name, "kept", "the share or pattern leaves all of its weights", figures)
    layer.use.value.const_value = ir.tensor(after, dtype=old.dtype, name=layer.name)
    return Decision(layer.name, "pruned", reason, figures)


def sparsity_of(layers: Sequence[Layer]) -> float:
    """Share of zeros among all numbers of some weights."""
    arrays = [layer.array() for layer in layers]
    return sum(int((array == 0).sum()) for array in arrays) / max(sum(array.size for array in arrays), 1)


def _share(part: np.ndarray, mask: np.ndarray) -> float:
    return float(part[mask].sum()) / max(float(part.sum()), 1e-300)


def _share_of_zeros(array: np.ndarray) -> float:
    return float((array == 0).mean()) if array.size else 0.0


def _energy(array: np.ndarray) -> float:
    return float(np.square(array.astype(np.float64)).sum())
