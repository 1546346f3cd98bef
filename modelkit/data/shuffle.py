"""Samples in random order, epoch after epoch: held in memory, or in files that are read by index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modelkit.data.dataset import Batch, Dataset, Rows
from modelkit.errors import DataError, ResourceError

HELD_BYTES = 1 << 30
"""Samples that take up to so many bytes are held in memory by `hold`."""

_BLOCK = 256  # samples that are copied at a time


class HeldDataset(Dataset):
    """A dataset with random access to its samples; see `hold`.

    Args:
        source: Where the samples are from.
        batched: Each batched input's samples, ``[count, ...]``; in memory or mapped from a file.
        shared: Inputs that all samples share.
    """

    def __init__(self, source: Dataset, batched: dict[str, np.ndarray], shared: dict[str, np.ndarray]) -> None:
        self.name, self.path, self.format, self.count = source.name, source.path, source.format, source.count
        self.labels, self.synthetic, self.notes, self.plan = (
            source.labels,
            source.synthetic,
            source.notes,
            source.plan,
        )
        self._source, self._batched, self._shared = source, batched, shared

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples in any order, in memory for one batch (see `Dataset.rows`)."""
        count = self.count if indices is None else len(indices)
        for start in range(0, count, size):
            stop = min(start + size, count)
            which: slice | np.ndarray = slice(start, stop) if indices is None else indices[start:stop]
            yield Rows({name: array[which] for name, array in self._batched.items()}, self._shared, stop - start)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the source's contents."""
        return self._source.fingerprint()


def hold(dataset: Dataset, folder: Path, *, limit: int = HELD_BYTES) -> HeldDataset:
    """Make a dataset's samples accessible at random, which files that are compressed or decoded are not.

    Args:
        dataset: What to hold; read once.
        folder: Existing folder for the files of samples that are too large for memory. They are npy files named
            ``held-<number>.npy`` and stay in use as long as the result is; the caller removes the folder.
        limit: Largest number of bytes to hold in memory.

    Raises:
        DataError: The samples differ in shape, so that they do not fit into one array.
        ResourceError: The disk is full.
    """
    if isinstance(dataset, HeldDataset):
        return dataset
    batched: dict[str, np.ndarray] = {}
    shared: dict[str, np.ndarray] = {}
    done = 0
    for rows in dataset.rows(_BLOCK):
        if done == 0:
            shared = rows.shared
            batched = _reserve(rows, dataset.count, folder, limit)
        for name, block in rows.batched.items():
            if block.shape[1:] != batched[name].shape[1:]:
                raise DataError(
                    f"the samples of '{dataset.name}' differ in shape ({list(batched[name].shape[1:])} and "
                    f"{list(block.shape[1:])} for '{name}'), so they cannot be mixed into batches",
                    hint="save them with one shape, padded or cut, as npz",
                )
            batched[name][done : done + len(block)] = block
        done += rows.count
    return HeldDataset(dataset, batched, shared)


def _reserve(first: Rows, count: int, folder: Path, limit: int) -> dict[str, np.ndarray]:
    """Make room for all samples, given the first of them."""
    shapes = {name: (count, *block.shape[1:]) for name, block in first.batched.items()}
    total = sum(block[:1].nbytes * count for block in first.batched.values())
    if total <= limit or any(block.dtype.hasobject for block in first.batched.values()):
        return {name: np.empty(shapes[name], block.dtype) for name, block in first.batched.items()}
    try:
        return {
            name: _mapped(folder / f"held-{number}.npy", shapes[name], block.dtype)
            for number, (name, block) in enumerate(first.batched.items())
        }
    except OSError as error:
        raise ResourceError(
            f"there is no room for {total / 1e9:.1f} GB of samples: {error.strerror}",
            "set TMPDIR to a folder on a larger disk, or use fewer samples",
        ) from error


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    # Storing zeros first finds a full disk now, as an error; a mapped page that cannot be stored kills the process.
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        left, block = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, bytes(1 << 22)
        while left:
            left -= file.write(block[: min(left, len(block))])
    array: np.ndarray = np.load(path, mmap_mode="r+", allow_pickle=False)
    return array


def shuffled(dataset: HeldDataset, size: int, *, seed: int, epoch: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Stream one epoch: all samples once, in an order that only the seed and the epoch decide.

    Args:
        dataset: Samples with random access.
        size: Samples in a batch at most; the batches are as even as can be, since a last one of few samples would
            say little and still count as much. A model with a fixed batch dimension gets that many instead.
        seed: At least 0.
        epoch: Number of the epoch, at least 0.

    Yields:
        The numbers of the batch's samples in the dataset, ``[valid]``, and the batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(dataset.count)
    fixed = dataset.plan.fixed
    cuts = np.arange(fixed, dataset.count, fixed) if fixed else steps_per_epoch(dataset, size)
    for numbers in np.array_split(order, cuts):
        yield numbers, next(iter(dataset.subset(numbers).batches(len(numbers))))


def steps_per_epoch(dataset: Dataset, size: int) -> int:
    """Number of batches that `shuffled` yields."""
    return -(-dataset.count // (dataset.plan.fixed or size))
