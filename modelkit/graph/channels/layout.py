"""The ids of the positions of one tensor, and what moving its axes does to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Block:
    """Ids over one axis of a tensor, or over several at once.

    Attributes:
        axes: The axes, ascending.
        ids: One id for each combination of positions along them; a position disappears with its id.
    """

    axes: tuple[int, ...]
    ids: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Shape of a tensor and the ids of its positions.

    Attributes:
        shape: With numbers for symbolic dimensions.
        static: For each axis, whether its size is the same for all inputs.
        blocks: Ids, no axis in two blocks. Axes without ids keep their size.
    """

    shape: tuple[int, ...]
    static: tuple[bool, ...]
    blocks: tuple[Block, ...] = ()

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def block_at(self, axis: int) -> Block | None:
        """Return the block that an axis belongs to."""
        return next((block for block in self.blocks if axis in block.axes), None)

    def extends(self, axis: int) -> bool:
        """Whether there is more than one position along an axis, for some input."""
        return self.shape[axis] != 1 or not self.static[axis]

    def ids(self) -> np.ndarray:
        """All ids, flat."""
        return np.concatenate([np.empty(0, np.int64), *(block.ids.reshape(-1) for block in self.blocks)])

    def with_blocks(self, blocks: Sequence[Block]) -> Layout:
        """Return the same shape with other ids."""
        return replace(self, blocks=tuple(sorted(blocks, key=lambda b: b.axes)))


def moved(block: Block, axes: Sequence[int]) -> Block:
    """Give a block's axes new numbers, and sort them.

    Args:
        block: The block.
        axes: The new number of each of its axes.
    """
    order = np.argsort(axes, kind="stable")
    return Block(tuple(int(axes[i]) for i in order), block.ids.transpose(order))


def keeps_order(axes: Sequence[int]) -> bool:
    """Whether axes ascend."""
    return all(a < b for a, b in pairwise(axes))


def rows(block: Block, axis: int) -> np.ndarray:
    """Ids of a block as [positions along an axis, all others]."""
    return np.moveaxis(block.ids, block.axes.index(axis), 0).reshape(block.ids.shape[block.axes.index(axis)], -1)


def trim(axes: Sequence[int], ids: np.ndarray) -> Block | None:
    """Make a block of ids, leaving out axes along which they do not differ; None where none is left."""
    kept: list[int] = []
    for axis in axes:
        position = len(kept)
        first = ids.take([0], axis=position)
        if ids.shape[position] == 1 or (ids == first).all():
            ids = first.squeeze(position)
        else:
            kept.append(axis)
    return Block(tuple(kept), ids) if kept else None


def segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Split the axes of a reshape into the smallest runs with equal products.

    Args:
        before: Shape before, no zeros.
        after: Shape after.

    Returns:
        Pairs of axes before and after, axes of size 1 left out; None where the products differ.
    """
    left = [a for a, size in enumerate(before) if size != 1]
    right = [a for a, size in enumerate(after) if size != 1]
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        inside, outside = [left[i]], [right[j]]
        a, b = before[left[i]], after[right[j]]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                if i == len(left):
                    return None
                a *= before[left[i]]
                inside.append(left[i])
                i += 1
            else:
                if j == len(right):
                    return None
                b *= after[right[j]]
                outside.append(right[j])
                j += 1
        found.append((inside, outside))
    return found if i == len(left) and j == len(right) else None


def reshape_block(
    block: Block, before: Sequence[int], after: Sequence[int], runs: Sequence[tuple[list[int], list[int]]]
) -> Block | None:
    """Follow a block through a reshape; None where its ids no longer differ along any axis.

    Args:
        block: The block before.
        before: Shape before.
        after: Shape after.
        runs: What ``segments`` returned.
    """
    touched = [run for run in runs if set(run[0]) & set(block.axes)]
    inside = [axis for run in touched for axis in run[0]]
    outside = [axis for run in touched for axis in run[1]]
    kept = [axis for axis in block.axes if axis in inside]
    ids = block.ids.reshape([before[axis] for axis in kept])
    ids = ids.reshape([before[axis] if axis in kept else 1 for axis in inside])
    ids = np.broadcast_to(ids, [before[axis] for axis in inside]).reshape([after[axis] for axis in outside])
    return trim(outside, ids)
