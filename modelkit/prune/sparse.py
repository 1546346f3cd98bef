"""Unstructured pruning of a model: single weights become zero, shapes stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.layers import WeightUse
from modelkit.prune import magnitude
from modelkit.prune.config import PruneConfig
from modelkit.prune.select import prunable_weights


def prune_by_magnitude(model: ir.Model, config: PruneConfig) -> list[Decision]:
    """Set the smallest weights to zero, in place.

    Args:
        model: A normalised model.
        config: Says how many, and of which layers.

    Returns:
        A decision for every float tensor, pruned or kept.
    """
    uses, decisions = prunable_weights(model, config.include, config.exclude)
    arrays = [use.value.const_value.numpy() for use in uses]  # type: ignore[union-attr]
    sizes = [np.abs(array.astype(np.float32)) for array in arrays]
    if config.threshold is not None:
        masks = magnitude.masks_by_threshold(sizes, config.threshold)
    else:
        masks = magnitude.masks_by_sparsity(sizes, config.sparsity or 0.0, together=config.scope == "global")
    decisions += [write(use, array, mask) for use, array, mask in zip(uses, arrays, masks, strict=True)]
    return sorted(decisions, key=lambda decision: decision.target)


def write(use: WeightUse, array: np.ndarray, mask: np.ndarray) -> Decision:
    """Give a weight its new numbers: ``array`` where ``mask`` is True, zero elsewhere."""
    old = use.value.const_value
    assert old is not None
    name = str(use.value.name)
    pruned = np.where(mask, array, np.zeros((), array.dtype)).astype(array.dtype)
    use.value.const_value = ir.tensor(pruned, dtype=old.dtype, name=name)
    before = _share_of_zeros(old.numpy())
    after = _share_of_zeros(pruned)
    role = use.role.value.replace("_", " ")
    numbers: dict[str, float | int | str] = {
        "weights": int(array.size),
        "zeros_before": round(before, 4),
        "zeros": round(after, 4),
        "energy_kept": round(_energy(pruned) / max(_energy(array), 1e-30), 4),
    }
    return Decision(name, "pruned", role, numbers)


def sparsity_of(model: ir.Model, uses: Sequence[WeightUse]) -> float:
    """Share of zeros among all numbers of some weights."""
    arrays = [use.value.const_value.numpy() for use in uses]  # type: ignore[union-attr]
    return sum(int((array == 0).sum()) for array in arrays) / max(sum(array.size for array in arrays), 1)


def _share_of_zeros(array: np.ndarray) -> float:
    return float((array == 0).mean()) if array.size else 0.0


def _energy(array: np.ndarray) -> float:
    return float(np.square(array.astype(np.float64)).sum())
