"""Which channel positions are the same, go together, or cannot go: collected edge by edge, solved once.

Each position along an axis that can shrink carries an id. Ops state relations between ids; nothing is decided
before all of them are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The id of a position that always stays.
FIXED = -1


@dataclass(frozen=True)
class Solution:
    """What follows from all relations.

    Attributes:
        channel: For each id, the smallest id that is the same channel.
        atom: For each id, the smallest id that is removed with it.
    """

    channel: np.ndarray
    atom: np.ndarray


class Relations:
    """Collects relations between ids."""

    def __init__(self) -> None:
        self.count = 0
        self.frozen: list[tuple[np.ndarray, str]] = []
        self.inexact: list[tuple[np.ndarray, str]] = []
        self.boxes: list[tuple[np.ndarray, str]] = []
        self.pieces: list[tuple[np.ndarray, np.ndarray, str]] = []
        self.rigid: list[tuple[np.ndarray, str]] = []
        self.partitions: list[tuple[np.ndarray, str]] = []
        self._same: list[tuple[np.ndarray, np.ndarray]] = []
        self._tied: list[tuple[np.ndarray, np.ndarray]] = []

    def fresh(self, *shape: int) -> np.ndarray:
        """Return new ids in an array of this shape."""
        size = int(np.prod(shape, dtype=np.int64))
        ids = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return ids

    def same(self, a: np.ndarray, b: np.ndarray, reason: str) -> None:
        """State that positions are the same channel; next to a fixed position nothing can go.

        Args:
            a: Ids.
            b: Ids; the two are broadcast.
            reason: Why a channel next to a fixed position has to stay.
        """
        self._relate(self._same, a, b, reason)

    def tie(self, a: np.ndarray, b: np.ndarray, reason: str) -> None:
        """State that positions can only be removed together, as the parts of one head."""
        self._relate(self._tied, a, b, reason)

    def freeze(self, ids: np.ndarray, reason: str) -> None:
        """State that positions always stay."""
        ids = np.unique(ids[ids != FIXED])
        if ids.size:
            self.frozen.append((ids, reason))

    def change(self, ids: np.ndarray, reason: str) -> None:
        """State that removing is not the same as setting to zero."""
        ids = np.unique(ids[ids != FIXED])
        if ids.size:
            self.inexact.append((ids, reason))

    def box(self, ids: np.ndarray, reason: str) -> None:
        """State that what is left of an array of ids over several axes must be a full array again."""
        self.boxes.append((ids, reason))

    def piece(self, ids: np.ndarray, whole: np.ndarray, reason: str) -> None:
        """State that an array of ids is a piece of another, which has to be full in the same rows."""
        self.pieces.append((ids, whole, reason))

    def lines(self, ids: np.ndarray, reason: str) -> None:
        """State that only whole lines can go from an array of ids, since positions in it are counted."""
        self.rigid.append((ids, reason))

    def partition(self, ids: np.ndarray, reason: str) -> None:
        """State that each row of [sections, n] ids keeps the same number, at least one."""
        self.partitions.append((ids, reason))

    def solve(self) -> Solution:
        """Find what is the same and what goes together."""
        channel = connect(np.arange(self.count), self._same)
        atom = connect(channel.copy(), self._tied)
        return Solution(channel, atom)

    def _relate(self, edges: list[tuple[np.ndarray, np.ndarray]], a: np.ndarray, b: np.ndarray, reason: str) -> None:
        left, right = (x.reshape(-1) for x in np.broadcast_arrays(a, b))
        stuck = (left == FIXED) | (right == FIXED)
        if stuck.any():
            self.freeze(np.concatenate([left[stuck], right[stuck]]), reason)
        differ = ~stuck & (left != right)
        if differ.any():
            edges.append((left[differ], right[differ]))


def connect(parent: np.ndarray, edges: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Smallest member of each connected component; ``parent`` is a forest of depth one, changed in place."""
    if not edges:
        return parent
    left, right = (np.concatenate(side) for side in zip(*edges, strict=True))
    while True:
        a, b = parent[left], parent[right]
        open_ = a != b
        if not open_.any():
            return parent
        np.minimum.at(parent, np.maximum(a, b)[open_], np.minimum(a, b)[open_])
        while not np.array_equal(jumped := parent[parent], parent):
            parent[:] = jumped
