"""Channels that nothing reads: where all weights that lead on from one are zero, it is taken out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from modelkit.channels.cutting import verify_cut
from modelkit.decision import Decision
from modelkit.graph.channels import Group, cut, find_groups
from modelkit.graph.patterns import chosen


def cut_unused(model: ir.Model, *, exclude: Sequence[str] = ()) -> list[Decision]:
    """Take out channels behind which all weights are zero, in place; what the model computes stays the same.

    Pruning single weights leaves such channels, and the weights that lead into them for nothing. A channel that is
    taken out may have been the last that another one was read for, so that this goes on until none is left.

    Args:
        model: A normalised model with zeros among its weights.
        exclude: Name patterns of weights that keep their shape.

    Returns:
        A decision for each group that lost channels.
    """
    channels: dict[str, tuple[int, int]] = {}
    while found := [(group, mask) for group in find_groups(model) if (mask := _used(group, exclude)) is not None]:
        groups, keep = [group for group, _ in found], {group.name: mask for group, mask in found}
        verify_cut(model, groups, keep)
        for group in groups:
            before = channels.get(group.name, (group.channels, 0))[0]
            channels[group.name] = before, int(keep[group.name].sum())
        cut(model, keep)
    return [
        Decision(name, "cut", "nothing reads them: all weights behind are zero", {"channels": old, "kept": new})
        for name, (old, new) in sorted(channels.items())
    ]


def _used(group: Group, exclude: Sequence[str]) -> np.ndarray | None:
    """Which channels are read, bool ``[channels]``; None where all have to stay."""
    reading = [part for part in group.parts if part.kind == "consumes"]
    names = [str(part.value.name) for part in group.parts]
    if group.frozen is not None or not group.exact or not reading or chosen(names, [], exclude):
        return None
    used = np.zeros(group.channels, bool)
    for part in reading:
        used |= part.numbers().any(axis=1)
    # Channels that go together stay together, and one has to stay.
    used = np.isin(group.atoms, group.atoms[used])
    if not used.any():
        used = group.atoms == group.atoms[0]
    return None if used.all() or group.problem(used) is not None else used
