"""Datasets one after the other, of which only some have labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from modelkit.data.dataset import Dataset, Rows

IGNORED = -100
"""Label of samples that have none among those that do, where labels are whole numbers from 0 on; else it is NaN."""


class Joined(Dataset):
    """The samples of several datasets for one model, in their order.

    Args:
        parts: The datasets; the first says how samples are cut into batches and what labels look like.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        first = parts[0]
        self.name, self.path, self.format, self.plan = first.name, first.path, first.format, first.plan
        self.count = sum(part.count for part in parts)
        self.synthetic = any(part.synthetic for part in parts)
        self.notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        like = first.labels
        if like is not None and like.dtype.kind != "f" and bool((like < 0).any()):
            like = like.astype(np.float64)
        self.labels = None if like is None else np.concatenate([_labels(part, like) for part in parts])
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(part.count for part in parts)])

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples (see `Dataset.rows`); runs of indices within one part are read together."""
        if indices is None:
            for part in self._parts:
                yield from part.rows(size)
            return
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        for run in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(owners)) + 1):
            if len(run):
                owner = int(owners[run[0]])
                yield from self._parts[owner].rows(size, indices[run] - self._starts[owner])

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the parts' fingerprints."""
        return hashlib.sha256("\n".join(part.fingerprint() for part in self._parts).encode()).hexdigest()


def _labels(part: Dataset, like: np.ndarray) -> np.ndarray:
    if part.labels is not None:
        return part.labels.astype(like.dtype)
    missing = np.nan if like.dtype.kind == "f" else IGNORED
    return np.full((part.count, *like.shape[1:]), missing, like.dtype)
