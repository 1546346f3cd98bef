"""Each layer before and after, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from modelkit.decision import Decision

_FIGURES = ("shape", "dtype", "bytes", "parameters", "macs")


def paired(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put the layers of an original beside those of its artifact, by name.

    Args:
        before: Layers of the original: ``name``, ``op``, ``weights``, ``shape``, ``dtype``, ``bytes``,
            ``parameters``, ``macs``.
        after: Layers of the artifact, likewise.

    Returns:
        ``name``, ``op`` and ``weights`` with the figures ``before`` and ``after``, one of which is None where a layer
        is on one side only. Those of the original come first, in its order.
    """
    # A name that repeats means nothing: what it would be paired with is unknown.
    new = {layer["name"]: layer for layer in after}
    old = Counter(layer["name"] for layer in before)
    found = [_pair(layer, new.get(layer["name"]) if old[layer["name"]] == 1 else None) for layer in before]
    return found + [_pair(None, layer) for layer in after if layer["name"] not in old]


def with_packed(layers: Sequence[Mapping[str, Any]], decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Count the bytes that weights take in their packed forms.

    Args:
        layers: Layers before packing, see `paired`.
        decisions: What packing did to each weight.
    """
    saved = {
        each.target: int(each.numbers["bytes_before"]) - int(each.numbers["bytes"])
        for each in decisions
        if each.action == "packed" and "bytes" in each.numbers
    }
    return [
        {**layer, "bytes": layer["bytes"] - sum(saved.get(name, 0) for name in layer["weights"])} for layer in layers
    ]


def _pair(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any]:
    either = before or after
    assert either is not None
    weights = dict.fromkeys(name for side in (before, after) if side for name in side["weights"])
    return {
        "name": either["name"],
        "op": either["op"],
        "weights": list(weights),
        "before": None if before is None else {key: before[key] for key in _FIGURES},
        "after": None if after is None else {key: after[key] for key in _FIGURES},
    }
