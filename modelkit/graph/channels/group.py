"""What can be cut: groups of channels, and the parts of weights that belong to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from modelkit.graph.tensors import constant_of

Kind = Literal["produces", "consumes", "follows"]


@dataclass(frozen=True)
class Part:
    """One axis of one initializer that follows a group.

    Attributes:
        value: The initializer.
        axis: The axis that is cut, non-negative.
        index: int64 [channels, k]: positions along ``axis`` that belong to each channel (one each, or H*W
            behind a flatten, or one for each gate). A channel with fewer than k is filled up with -1.
        kind: "produces" for the output channels of a weight, "consumes" for its input channels, "follows"
            for one number per channel (bias, BatchNormalization, PRelu, LayerNormalization).
        node: The node that reads the initializer in this part.
        sections: Greater than 1 for the input channels of a grouped convolution, whose weight is
            [M, C / sections, ...]: ``index`` then counts the C input channels of the whole convolution,
            and channel c lies in the rows of section ``c // (C / sections)``.
    """

    value: ir.Value
    axis: int
    index: np.ndarray
    kind: Kind
    node: ir.Node
    sections: int = 1

    def numbers(self, array: np.ndarray | None = None) -> np.ndarray:
        """Gather the numbers of each channel.

        Args:
            array: Stands in for the initializer's own numbers; same shape.

        Returns:
            [channels, n]: all numbers that would go with each channel; 0 where a channel has fewer.
        """
        if array is None:
            tensor = constant_of(self.value)
            assert tensor is not None
            array = tensor.numpy()
        rows = self.view(array)
        found = rows[np.maximum(self.index, 0)]
        found[self.index < 0] = 0
        return found.reshape(len(self.index), -1)

    def view(self, array: np.ndarray) -> np.ndarray:
        """Return [positions, ...] such that ``index`` counts its rows; a view or copy of ``array``."""
        if self.sections == 1:
            return np.moveaxis(array, self.axis, 0)
        split = array.reshape(self.sections, array.shape[0] // self.sections, *array.shape[1:])
        return np.swapaxes(split, 1, 2).reshape(self.sections * array.shape[1], -1, *array.shape[2:])

    def positions(self, channels: np.ndarray) -> np.ndarray:
        """Positions along the axis of some channels, sorted, without fillers."""
        found = self.index[channels].reshape(-1)
        return np.unique(found[found >= 0])


@dataclass
class Group:
    """Channels that run through the graph together.

    Attributes:
        name: Unique and stable: the first node that makes the channels.
        channels: Their number.
        parts: Axes of initializers that shrink with them, in the order of the graph.
        atoms: int64 [channels]: channels with the same number are removed together (attention heads).
        partition: int64 [channels]: where set, each number's channels must keep the same count, at least
            one (the groups of a grouped convolution, the groups of GroupNormalization).
        pieces: Bool arrays [channels]: of each of these sets at least one channel has to stay, since the
            graph splits it off.
        activations: Tensors that carry the channels along one axis: value, axis, index [channels, k].
        frozen: Why nothing can be cut; None where it can.
        exact: Whether a cut computes what the graph computes with the channels set to zero. False where
            statistics over channels change (LayerNormalization, mean over channels).
        inexact: Why not; "" where exact.
    """

    name: str
    channels: int
    parts: list[Part]
    atoms: np.ndarray
    partition: np.ndarray | None = None
    pieces: list[np.ndarray] = field(default_factory=list)
    activations: list[tuple[ir.Value, int, np.ndarray]] = field(default_factory=list)
    frozen: str | None = None
    exact: bool = True
    inexact: str = ""

    def problem(self, kept: np.ndarray) -> str | None:
        """Say why these channels cannot be what stays, or None where they can.

        Args:
            kept: Bool [channels].
        """
        if self.frozen is not None:
            return self.frozen
        if not kept.any():
            return "no channel would be left"
        counts = np.bincount(self.atoms, weights=kept)
        sizes = np.bincount(self.atoms)
        if ((counts != 0) & (counts != sizes)).any():
            return "channels that belong together would be separated"
        if self.partition is not None:
            left = np.bincount(self.partition, weights=kept)
            if left.min() != left.max():
                return f"each of {len(left)} sections has to keep the same number of channels"
        if any(not kept[piece].any() for piece in self.pieces):
            return "nothing would be left of a piece that the graph splits off"
        return None
