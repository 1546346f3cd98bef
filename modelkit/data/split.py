"""Splits a dataset into parts at random: disjoint, together complete, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelkit.data.dataset import Dataset
from modelkit.errors import DataError, UsageError

SPLIT_FROM = 16
"""Fewer samples than this are better not split: each part would be too small to say anything."""


def split(dataset: Dataset, *, parts: Mapping[str, float], seed: int) -> dict[str, Dataset]:
    """Split a dataset.

    Where the labels are class numbers the split is stratified: each part gets its share of each class, to
    within one or two samples. Samples keep the order that they have in the dataset.

    Args:
        dataset: What to split.
        parts: Name and share of each part; shares are above 0 and sum to 1.
        seed: Decides which samples go where, at least 0.

    Returns:
        Views on the dataset, by the names of `parts`.

    Raises:
        UsageError: The shares are not as said.
        DataError: There are fewer samples than parts.
    """
    shares = np.array(list(parts.values()), dtype=np.float64)
    if not len(shares) or not np.all(np.isfinite(shares)) or shares.min() <= 0 or abs(shares.sum() - 1) > 1e-6:
        listed = ", ".join(f"{name} {share:g}" for name, share in parts.items())
        raise UsageError(f"the parts of a split must be above 0 and sum to 1; got {listed or 'none'}")
    if seed < 0:
        raise UsageError(f"the seed is {seed}; it must be at least 0")
    if dataset.count < len(shares):
        raise DataError(
            f"'{dataset.name}' has {dataset.count} samples, too few for {len(shares)} parts "
            f"({', '.join(parts)}) of at least one each",
            hint="give more data, or one file for each part",
        )
    owners = _assign(_strata(dataset), shares / shares.sum(), np.random.default_rng(seed))
    return {
        name: dataset.subset(np.flatnonzero(owners == number), name=f"{dataset.name} [{name}]")
        for number, name in enumerate(parts)
    }


def _strata(dataset: Dataset) -> np.ndarray:
    """Return the class of each sample, 0 everywhere where there are no classes."""
    labels = dataset.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return np.zeros(dataset.count, np.int64)
    return np.unique(labels, return_inverse=True)[1]


def _assign(strata: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the number of the part that each sample goes to."""
    owners = np.empty(len(strata), np.int64)
    deficit = np.zeros(len(shares))  # what each part was promised and has not got yet, over all classes
    order = np.argsort(strata, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        quota = shares * len(members)
        counts = np.floor(quota + 1e-9).astype(np.int64)
        deficit += quota - counts
        # The largest deficit first, so that the totals stay right with many small classes too.
        for _ in range(len(members) - int(counts.sum())):
            winner = int(np.argmax(deficit))
            counts[winner] += 1
            deficit[winner] -= 1
        owners[random.permutation(members)] = np.repeat(np.arange(len(shares)), counts)
    for part in range(len(shares)):
        if not np.any(owners == part):
            largest = int(np.argmax(np.bincount(owners, minlength=len(shares))))
            owners[random.choice(np.flatnonzero(owners == largest))] = part
    return owners
