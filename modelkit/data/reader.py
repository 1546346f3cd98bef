"""Reads rows one after another, and picks any of them, without holding them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import numpy as np

# Rows between wanted ones are read along with them up to this many times the batch: one long read is cheaper
# than many short ones, and memory stays bounded.
_SPAN = 4


class RowReader(ABC):
    """A position in a file of rows."""

    @abstractmethod
    def read(self, count: int) -> dict[str, np.ndarray]:
        """Return the next `count` rows of each column, ``[count, ...]``."""

    @abstractmethod
    def skip(self, count: int) -> None:
        """Move on by `count` rows."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pick(
    open_reader: Callable[[], RowReader], count: int, size: int, indices: np.ndarray | None
) -> Iterator[dict[str, np.ndarray]]:
    """Stream rows in blocks.

    Args:
        open_reader: Opens the rows at row 0.
        count: Rows in all.
        size: Rows of a block; the last may have fewer.
        indices: Which rows, in which order; None for all. Where they are not increasing, the rows that they
            name are held in memory.
    """
    if indices is None:
        with open_reader() as reader:
            for start in range(0, count, size):
                yield reader.read(min(size, count - start))
        return
    if np.all(np.diff(indices) > 0):
        yield from _pick_increasing(open_reader, size, indices)
        return
    wanted, places = np.unique(indices, return_inverse=True)
    held = _join(list(_pick_increasing(open_reader, size, wanted)))
    for start in range(0, len(places), size):
        block = places[start : start + size]
        yield {name: array[block] for name, array in held.items()}


def _pick_increasing(
    open_reader: Callable[[], RowReader], size: int, indices: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    with open_reader() as reader:
        position = 0
        for start in range(0, len(indices), size):
            block = indices[start : start + size]
            pieces = []
            for run in _runs(block, _SPAN * size):
                reader.skip(int(run[0]) - position)
                span = reader.read(int(run[-1] - run[0]) + 1)
                position = int(run[-1]) + 1
                pieces.append({name: array[run - run[0]] for name, array in span.items()})
            yield _join(pieces)


def _runs(block: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """Cut increasing indices so that no piece spans more than `longest` rows or has a wide gap in it."""
    start = 0
    for i in range(1, len(block) + 1):
        if i == len(block) or block[i] - block[start] >= longest or block[i] - block[i - 1] > longest // 2:
            yield block[start:i]
            start = i


def _join(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
