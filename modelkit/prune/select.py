"""Which weights are pruned: patterns, roles and types, with a reason for each that is left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.layers import Role, WeightUse, weight_uses
from modelkit.graph.patterns import check_patterns, chosen, names_of
from modelkit.graph.tensors import FLOATS
from modelkit.linear.matrix import MATRIX_ROLES


def prunable_weights(
    model: ir.Model, include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[WeightUse], list[Decision]]:
    """Return the weights that may lose numbers, and a decision for each float tensor that stays as it is.

    A weight that several layers share is listed once, as the first of them reads it.

    Raises:
        UsageError: A pattern matches nothing.
    """
    uses: dict[int, WeightUse] = {}
    for use in weight_uses(model):
        first = uses.get(id(use.value))
        if first is None or (first.role not in MATRIX_ROLES and use.role in MATRIX_ROLES):
            uses[id(use.value)] = use
    names = [name for use in uses.values() for name in names_of(use)]
    check_patterns(include, names, "include")
    check_patterns(exclude, names, "exclude")
    weights: list[WeightUse] = []
    kept: list[Decision] = []
    for use in uses.values():
        reason = _why_not(use, include, exclude)
        if reason is None:
            weights.append(use)
        else:
            kept.append(Decision(str(use.value.name), "kept", reason))
    return weights, kept


def _why_not(use: WeightUse, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    tensor = use.value.const_value
    assert tensor is not None
    if use.role in (Role.QUANTIZED, Role.QUANTIZATION):
        return "already quantized: prune the float original"
    if use.role not in MATRIX_ROLES:
        return f"used for {use.role.value.replace('_', ' ')}: only weights of layers are pruned"
    reason = chosen(names_of(use), include, exclude)
    if reason:
        return reason
    if tensor.dtype not in FLOATS:
        return f"stored as {tensor.dtype.name.lower()}, only float weights are pruned"
    if use.value.is_graph_output():
        return "the graph returns it"
    if not np.isfinite(tensor.numpy().astype(np.float32)).all():
        return "holds infinite values or NaN"
    return None
