"""Datasets of one array for each input: in memory, in an npz, or in a folder of npy files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from modelkit.data.check import (
    Problems,
    cast,
    check_counts,
    check_dtype,
    check_names,
    check_shape,
    describe_shape,
    expected,
    scan,
)
from modelkit.data.dataset import Dataset, Rows
from modelkit.data.labels import LABELS, check_labels
from modelkit.data.npyformat import Array, HeldArray
from modelkit.data.plan import plan_batches
from modelkit.data.reader import RowReader, pick
from modelkit.runtime import TensorSpec

_MOST_LABELS = 1 << 27
_LABELS_HINT = f"'{LABELS}' with one value for each sample"


class ArraysDataset(Dataset):
    """One array for each input of the model.

    Args:
        arrays: Each input's array, and `labels` where there are any.
        specs: The model's inputs.
        name: What to call it in reports and errors.
        format: What it is, for the report.
        fingerprint: Returns the SHA-256 of the contents; called at most once.
        path: Where it is from.
        need_labels: Labels must be there.
        classes: Classes that the model tells apart, where known; labels must be below.

    Raises:
        DataError: The arrays do not fit the model; all mismatches at once.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        specs: Sequence[TensorSpec],
        *,
        name: str,
        format: str,
        fingerprint: Callable[[], str],
        path: Path | None = None,
        need_labels: bool = False,
        classes: int | None = None,
    ) -> None:
        self.name, self.format, self.path = name, format, path
        self.plan = plan_batches(specs)
        self._hash, self._hashed = fingerprint, ""
        self._dtypes = {spec.name: spec.dtype for spec in specs}
        inputs = {n: a for n, a in arrays.items() if n != LABELS or n in self._dtypes}
        labels = None if LABELS in self._dtypes else arrays.get(LABELS)
        problems, notes = Problems(name), list[str]()
        hint = expected(specs, list(arrays), _LABELS_HINT if need_labels else f"{_LABELS_HINT} if there are any")

        check_names(list(inputs), specs, "array", problems)
        self._batched: dict[str, Array] = {}
        self._shared: dict[str, np.ndarray] = {}
        counts: dict[str, int] = {}
        for spec in specs:
            if spec.name not in inputs:
                continue
            array, axis = inputs[spec.name], self.plan.axes[spec.name]
            good = check_dtype(spec, array.dtype, problems, notes)
            check_shape(spec, array.shape, axis, problems)
            if len(array.shape) == len(spec.shape) and axis is not None:
                counts[spec.name] = array.shape[axis]
            if good:
                scan(spec.name, array, spec.dtype, problems)
        # A model whose inputs are all shared takes one feed, which is one sample.
        alone = all(axis is None for axis in self.plan.axes.values())
        self.count = 1 if alone else check_counts(counts, problems)
        if labels is not None and math.prod(labels.shape) > _MOST_LABELS:
            problems.add(f"labels are {describe_shape(labels.shape)}, more than {_MOST_LABELS} values")
        elif labels is not None:
            known = self.count if alone or len(set(counts.values())) == 1 else None
            self.labels = check_labels(labels.load(), known, classes, problems)
        elif need_labels:
            problems.add(f"the array '{LABELS}' is missing; labels are needed to measure quality")
        problems.raise_any(hint)

        self.notes = tuple(notes)
        for spec in specs:
            array, axis = inputs[spec.name], self.plan.axes[spec.name]
            if axis is None:
                self._shared[spec.name] = cast(array.load(), spec.dtype)
            elif axis == 0:
                self._batched[spec.name] = array
            else:
                self._batched[spec.name] = HeldArray(np.moveaxis(array.load(), axis, 0))

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples (see `Dataset.rows`)."""
        if not self._batched:
            yield Rows({}, self._shared, 1)
            return
        for block in pick(self._open, self.count, size, indices):
            batched = {n: cast(rows, self._dtypes[n]) for n, rows in block.items()}
            yield Rows(batched, self._shared, len(next(iter(batched.values()))))

    def _open(self) -> RowReader:
        return _ArraysReader(self._batched)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the contents."""
        self._hashed = self._hashed or self._hash()
        return self._hashed


class _ArraysReader(RowReader):
    """Reads several arrays side by side."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._readers = {name: array.rows() for name, array in arrays.items()}

    def read(self, count: int) -> dict[str, np.ndarray]:
        return {name: reader.read(count) for name, reader in self._readers.items()}

    def skip(self, count: int) -> None:
        for reader in self._readers.values():
            reader.skip(count)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    specs: Sequence[TensorSpec],
    *,
    labels: np.ndarray | None = None,
    name: str = "arrays",
    need_labels: bool = False,
    classes: int | None = None,
) -> Dataset:
    """Make a dataset of arrays in memory, for library users.

    Args:
        arrays: One array for each input of the model; not copied.
        specs: The model's inputs.
        labels: One label for each sample.
        name: What to call it in reports and errors.
        need_labels: Labels must be there.
        classes: Classes that the model tells apart, where known; labels must be below.

    Raises:
        DataError: The arrays do not fit the model; all mismatches at once.
    """
    held: dict[str, Array] = {n: HeldArray(np.asarray(a)) for n, a in arrays.items()}
    if labels is not None:
        held[LABELS] = HeldArray(np.asarray(labels))
    return ArraysDataset(
        held,
        specs,
        name=name,
        format="arrays",
        fingerprint=lambda: _hash_arrays(held),
        need_labels=need_labels,
        classes=classes,
    )


def _hash_arrays(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name].load()
        plain = values.astype(str) if values.dtype.hasobject else values
        digest.update(f"{name}\0{plain.dtype.str}{plain.shape}\0".encode())
        digest.update(np.ascontiguousarray(plain).tobytes())
    return digest.hexdigest()
