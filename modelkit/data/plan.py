"""Which axis of each input counts the samples, and how many samples the model takes at once.

A *sample* is one index along the batch axis of every batched input. The batch axis of an input is, in
this order:

1. the axis whose symbolic dimension is called something with "batch"; where no dimension of the model is,
   the axis with the symbol that the first input with a symbolic first dimension starts with;
2. axis 0 where the first dimension is symbolic, unless that symbol is also a later axis of another input
   (positions ``[seq]`` beside tokens ``[batch, seq]``): such an input is shared;
3. axis 0 where the model has no symbolic batch axis and the first dimension is the one that the first input
   has: the model then takes exactly that many samples at once.

An input without a batch axis (rank 0, or a fixed first dimension beside a symbolic batch) is *shared*:
its array has the model's shape and is fed unchanged with every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelkit.runtime import TensorSpec


@dataclass(frozen=True)
class BatchPlan:
    """How a model's inputs are cut into batches.

    Attributes:
        axes: For each input the axis that counts samples; None where the input is shared.
        fixed: How many samples the model takes at once; None where it takes any number.
    """

    axes: dict[str, int | None]
    fixed: int | None


def plan_batches(specs: Sequence[TensorSpec]) -> BatchPlan:
    """Find the batch axis of each input (see the top of this file).

    Args:
        specs: The model's inputs, in the model's order.
    """
    symbols = _batch_symbols(specs)
    axes = {spec.name: _symbolic_axis(spec, specs, symbols) for spec in specs}
    if any(axis is not None for axis in axes.values()):
        return BatchPlan(axes, None)
    firsts = [spec.shape[0] for spec in specs if spec.shape]
    if not firsts or not isinstance(firsts[0], int) or firsts[0] < 1:
        return BatchPlan(axes, None)
    for spec in specs:
        if spec.shape and spec.shape[0] == firsts[0]:
            axes[spec.name] = 0
    return BatchPlan(axes, firsts[0])


def _batch_symbols(specs: Sequence[TensorSpec]) -> set[str]:
    named = {d for spec in specs for d in spec.shape if isinstance(d, str) and "batch" in d.lower()}
    if named:
        return named
    for spec in specs:
        if spec.shape and isinstance(spec.shape[0], str):
            return {spec.shape[0]} - {"?"}
    return set()


def _symbolic_axis(spec: TensorSpec, specs: Sequence[TensorSpec], symbols: set[str]) -> int | None:
    for axis, dim in enumerate(spec.shape):
        if dim in symbols:
            return axis
    first = spec.shape[0] if spec.shape else None
    if not isinstance(first, str):
        return None
    if first != "?" and any(first in other.shape[1:] for other in specs if other.name != spec.name):
        return None
    return 0
