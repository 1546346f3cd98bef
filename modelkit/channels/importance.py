"""How much each channel of a group matters: from weights alone, or from what flows through them.

Each method gives one number for each atom (channels that can only go together) of a group; only the order within a
group is meant. What all parts of a group say is averaged, each part first divided by its mean, so that a layer with
large weights does not drown the others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelkit.errors import UsageError
from modelkit.graph.channels import Group, Part
from modelkit.linear.grams import LayerGram
from modelkit.linear.layers import columns_of
from modelkit.linear.matrix import Layer


def magnitude(group: Group, order: int) -> np.ndarray:
    """L1 or L2 norm of all the weights that a channel takes up, in the layers that make it and that read it.

    Li et al. 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710, for whole groups as in Fang et al.
    2023, "DepGraph", arXiv:2301.12900.

    Args:
        group: The group.
        order: 1 or 2.
    """
    scores = [np.linalg.norm(_rows(part), order, axis=1) for part in _weights(group)]
    return _together(group, scores)


def geometric_median(group: Group) -> np.ndarray:
    """Distance of a channel's weights from all others': what lies in the middle can be replaced by its neighbours.

    He et al. 2019, "Filter Pruning via Geometric Median", arXiv:1811.00250, eq. 6, over the layers that make the
    channels.
    """
    parts = [part for part in _weights(group) if part.kind == "produces"] or _weights(group)
    scores = []
    for part in parts:
        rows = _rows(part)
        squares = np.square(rows).sum(axis=1)
        distances = squares[:, None] + squares[None] - 2 * rows @ rows.T
        scores.append(np.sqrt(np.maximum(distances, 0)).sum(axis=1))
    return _together(group, scores)


def batchnorm_scale(group: Group) -> np.ndarray | None:
    """Absolute scale γ of the BatchNormalization that the channels pass through; None where there is none.

    Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming", arXiv:1708.06519.
    """
    parts = [
        part
        for part in group.parts
        if part.node.op_type == "BatchNormalization" and part.value is part.node.inputs[1]
    ]
    return _together(group, [np.abs(_rows(part)).sum(axis=1) for part in parts]) if parts else None


def random(group: Group, seed: int) -> np.ndarray:
    """Anything: the baseline that every other method has to beat."""
    # The name is part of the seed, so that a group's order does not depend on the groups around it.
    generator = np.random.default_rng([seed, *group.name.encode()])
    return _per_atom(group, generator.random(group.channels) + 1e-3)


def activation(group: Group, layers: Mapping[str, Layer], grams: Mapping[str, LayerGram]) -> np.ndarray | None:
    """Energy that a channel brings into the layers that read it: root of E[x²] w², summed over its weights.

    Args:
        group: The group.
        layers: Layers whose inputs were observed, by the weight's name.
        grams: What was seen, with squares.

    Returns:
        None where no layer that reads the group was observed.
    """
    scores = []
    for part, columns in reading_columns(group, layers):
        layer, gram = layers[str(part.value.name)], grams.get(str(part.value.name))
        if gram is None or not gram.count:
            continue
        matrices = layer.matrices(layer.array()).astype(np.float64)
        energy = (gram.squares / gram.count * np.square(matrices).sum(axis=1)).sum(axis=0)
        score = np.array([np.sqrt(energy[atom].sum()) for atom in columns])
        scores.append(score / max(float(score.mean()), 1e-30))
    return np.sum(scores, axis=0) if scores else None


def reading_columns(group: Group, layers: Mapping[str, Layer]) -> list[tuple[Part, list[np.ndarray]]]:
    """The parts through which known layers read a group, with the columns that each atom takes up there."""
    found = []
    members = atom_members(group)
    for part in group.parts:
        layer = layers.get(str(part.value.name))
        if part.kind != "consumes" or layer is None or part.axis == layer.use.channel_axis:
            continue
        if part.sections > 1:
            continue  # a channel is in some of the layer's groups only
        found.append((part, [columns_of(layer, part.positions(atom)).reshape(-1) for atom in members]))
    return found


def atom_members(group: Group) -> list[np.ndarray]:
    """Channels of each atom, atoms in the order of their numbers."""
    return [np.flatnonzero(group.atoms == atom) for atom in np.unique(group.atoms)]


def no_batchnorm(groups: list[Group]) -> UsageError:
    """The error for importance gamma where there is nothing to read it from."""
    return UsageError(
        f"importance gamma needs BatchNormalization, and none of the {len(groups)} channel groups has one left",
        "BatchNormalization behind a layer is folded into its weights, where l2 sees it; choose another importance",
    )


def _weights(group: Group) -> list[Part]:
    return [part for part in group.parts if part.kind != "follows"] or group.parts


def _rows(part: Part) -> np.ndarray:
    """All numbers of each channel in one initializer, ``[channels, numbers]``, float64."""
    return part.numbers().astype(np.float64)


def _together(group: Group, scores: list[np.ndarray]) -> np.ndarray:
    total = np.zeros(group.channels)
    for score in scores:
        total += score / max(float(score.mean()), 1e-30)
    return _per_atom(group, total / max(len(scores), 1))


def _per_atom(group: Group, scores: np.ndarray) -> np.ndarray:
    return np.array([scores[members].sum() for members in atom_members(group)])
