"""Which weights an algorithm touches: patterns, sizes and types, with a reason for each that is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.layers import WEIGHT_ROLES, Role, WeightUse, weight_uses
from modelkit.graph.patterns import check_patterns, chosen, names_of

QUANTIZABLE = {*WEIGHT_ROLES, Role.OTHER}
# Below this many numbers a tensor that is no layer's weight is more likely a constant of a formula than a table.
_MIN_OTHER = 1024
# Numbers looked at together.
_PIECE = 1 << 22


def check_finite(model: ir.Model) -> None:
    """Refuse a model whose weights, biases or normalisation parameters hold infinite values or NaN.

    Other constants may: masks hold minus infinity by design.

    Raises:
        ModelError: Names the first such tensor, and says how many there are.
    """
    roles = {*WEIGHT_ROLES, Role.BIAS, Role.NORM}
    found: dict[str, None] = {}
    for use in weight_uses(model):
        tensor = use.value.const_value
        if use.role not in roles or tensor is None or not tensor.dtype.is_floating_point() or _may_mask(use):
            continue
        if str(use.value.name) not in found and not _all_finite(tensor.numpy()):
            found[str(use.value.name)] = None
    if found:
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ModelError(
            f"the tensor '{next(iter(found))}'{others} holds infinite values or NaN",
            "a model like this computes nothing useful; export it again from a training run that converged",
        )


def _may_mask(use: WeightUse) -> bool:
    """Whether a constant that is added to a product is more than a row: then it may be a mask of attention scores."""
    return len(use.value.shape or ()) > 1 and all(node.op_type == "Add" for node, _ in use.consumers)


def _all_finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite, looked at in pieces: a large weight is not to be held twice."""
    flat = array.reshape(-1)
    pieces = range(0, flat.size, _PIECE)
    return all(bool(np.isfinite(flat[start : start + _PIECE]).all()) for start in pieces)


def float_weights(
    model: ir.Model, include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[WeightUse], list[Decision]]:
    """Return the weights to quantize, and a decision for each float tensor that stays as it is.

    Raises:
        UsageError: A pattern matches nothing.
    """
    uses = _one_per_tensor(weight_uses(model))
    names = [name for use in uses for name in names_of(use)]
    check_patterns(include, names, "include")
    check_patterns(exclude, names, "exclude")
    weights: list[WeightUse] = []
    kept: list[Decision] = []
    for use in uses:
        reason = _why_not(use, include, exclude)
        if reason is None:
            weights.append(use)
        else:
            kept.append(Decision(str(use.value.name), "kept", reason))
    return weights, kept


def _one_per_tensor(uses: Sequence[WeightUse]) -> list[WeightUse]:
    """Join the parts that one tensor plays: it is stored once, so it is quantized once, as its first layer wants."""
    joined: dict[int, WeightUse] = {}
    for use in uses:
        first = joined.get(id(use.value))
        if first is None:
            joined[id(use.value)] = use
        else:
            lead, other = (first, use) if first.role in WEIGHT_ROLES or use.role not in WEIGHT_ROLES else (use, first)
            joined[id(use.value)] = replace(lead, consumers=[*lead.consumers, *other.consumers])
    for key, use in joined.items():
        rank = len(use.value.const_value.shape) if use.value.const_value is not None else 0
        if use.role is Role.OTHER and rank > 1:
            # A table without a layer: rows have a scale each.
            joined[key] = replace(use, channel_axis=0, reduce_axes=(rank - 1,))
    return list(joined.values())


def role_name(use: WeightUse) -> str:
    """The part in words: "conv weight"."""
    return use.role.value.replace("_", " ")


def _why_not(use: WeightUse, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    tensor = use.value.const_value
    assert tensor is not None
    if use.role in (Role.BIAS, Role.NORM):
        return f"a {role_name(use)}: few numbers that every output depends on"
    if use.role not in QUANTIZABLE:
        return "already quantized" if use.role is Role.QUANTIZED else f"used for {role_name(use)}"
    reason = chosen(names_of(use), include, exclude)
    if reason:
        return reason
    if tensor.dtype != ir.DataType.FLOAT:
        return f"stored as {tensor.dtype.name.lower()}, only float32 weights are quantized"
    if use.role is Role.OTHER and (tensor.size < _MIN_OTHER or len(tensor.shape) < 2):
        return f"{tensor.size} numbers that are not a layer's weight: too few to be a table worth shrinking"
    if use.value.is_graph_output():
        return "the graph returns it"
    if not _all_finite(tensor.numpy()):
        return "holds infinite values or NaN"
    return None
