"""A dataset: batches of named input arrays, with labels or without.

A *sample* is one index along the batch axis of the model's inputs (plan.py says which axis that is; most
often the first). A dataset always yields all of its samples, once each, in the order of its files, unless
it was asked for fewer; it reads them as it goes, so memory does not grow with the number of samples.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modelkit.data.plan import BatchPlan
from modelkit.errors import DataError, UsageError


@dataclass(frozen=True)
class Batch:
    """What one call of the model takes.

    Attributes:
        inputs: One array for each input of the model, in the model's layout and dtype.
        labels: Labels of the rows that count, ``[valid, ...]`` (never padded); None without labels.
        valid: How many samples are real. A model with a fixed batch dimension gets its last batch filled
            up by repeating the last sample: drop the outputs from index ``valid`` on.
        axes: For each input the axis that counts samples; None where it is shared by all samples.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    valid: int
    axes: dict[str, int | None] = field(default_factory=dict)

    def real(self, name: str) -> np.ndarray:
        """Return an input without the samples that only fill up the batch (a view).

        Cutting ``[:valid]`` by hand is wrong for scalars, shared inputs and samples on another axis.

        Args:
            name: The input's name.
        """
        array, axis = self.inputs[name], self._axis(name)
        return array if axis is None else array[(slice(None),) * axis + (slice(self.valid),)]

    def trimmed(self, values: np.ndarray) -> np.ndarray:
        """Return what a model gave for this batch without fill-ups, where the first axis counts samples."""
        fed = self.fed
        return values[: self.valid] if fed > self.valid and values.ndim and len(values) == fed else values

    @property
    def fed(self) -> int:
        """Samples that the model gets, those that fill up the batch included; 0 where all inputs are shared."""
        return max((self.inputs[n].shape[a] for n in self.inputs if (a := self._axis(n)) is not None), default=0)

    def _axis(self, name: str) -> int | None:
        return self.axes.get(name, 0 if self.inputs[name].ndim else None)


@dataclass(frozen=True)
class Rows:
    """Samples on their way to a batch.

    Attributes:
        batched: Arrays with the samples on axis 0, whatever axis the model has them on.
        shared: Arrays that are fed as they are.
        count: Samples in here.
    """

    batched: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]
    count: int


class Dataset(ABC):
    """Named input arrays that fit one model, cut into batches.

    Attributes:
        name: What to call it in a report.
        path: File or folder it comes from; None where there is none.
        format: "npz", "npy folder", "onnx test sets", "image folder", "csv", "parquet", "arrays" or
            "synthetic".
        count: Number of samples, at least 1.
        labels: Labels of all samples, ``[count]`` or ``[count, ...]``; integers are int64; None without
            labels.
        synthetic: True where the values were made up.
        notes: What a reader should know, such as a change of dtype.
        plan: How the model's inputs are cut into batches.
    """

    name: str
    path: Path | None = None
    format: str
    count: int
    labels: np.ndarray | None = None
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    plan: BatchPlan

    @property
    def has_labels(self) -> bool:
        """Whether there is a label for each sample."""
        return self.labels is not None

    @abstractmethod
    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples; what each format implements and `batches` is made of.

        Args:
            size: Samples at a time; only the last may be fewer (formats whose samples come in groups of
                different shapes keep to those groups).
            indices: Which samples, in which order; None for all. Memory stays constant for increasing
                indices; others may need memory for all the samples that they name.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the contents."""

    def batches(self, size: int, limit: int | None = None) -> Iterator[Batch]:
        """Stream the samples as batches, always in the same order.

        Args:
            size: Samples in a batch. A model with a fixed batch dimension gets that many instead.
            limit: Stop after that many samples; None for all.

        Raises:
            UsageError: `size` or `limit` is below 1.
            DataError: A file changed or cannot be decoded (raised while iterating).
        """
        if size < 1:
            raise UsageError(f"the batch size is {size}; it must be at least 1")
        if limit is not None and limit < 1:
            raise UsageError(f"the number of samples is {limit}; it must be at least 1")
        return self._batches(self.plan.fixed or size, limit)

    def _batches(self, size: int, limit: int | None) -> Iterator[Batch]:
        indices = None if limit is None or limit >= self.count else np.arange(limit)
        done = 0
        for rows in self.rows(size, indices):
            inputs = {}
            for name, array in rows.batched.items():
                inputs[name] = self._lay_out(name, array)
            inputs.update(rows.shared)
            labels = None if self.labels is None else self.labels[done : done + rows.count]
            ordered = {name: inputs[name] for name in self.plan.axes}
            yield Batch(ordered, labels, rows.count, self.plan.axes)
            done += rows.count

    def _lay_out(self, name: str, array: np.ndarray) -> np.ndarray:
        """Pad to the model's fixed batch and move the samples to the model's batch axis."""
        fixed = self.plan.fixed
        if fixed is not None and len(array) < fixed:
            array = np.concatenate([array, np.repeat(array[-1:], fixed - len(array), axis=0)])
        axis = self.plan.axes[name]
        return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis else array

    def subset(self, indices: Sequence[int] | np.ndarray, *, name: str | None = None) -> Dataset:
        """Return a view on some samples; nothing is copied.

        Args:
            indices: Which samples, in which order, each in ``[0, count)``. Increasing ones stream in constant
                memory.
            name: What to call the view; the dataset's own name by default.

        Raises:
            UsageError: No index, or one outside the dataset.
        """
        return Subset(self, np.asarray(indices, dtype=np.int64).reshape(-1), name or self.name)

    def describe(self) -> dict[str, object]:
        """Return what a report says about the dataset (reads all of it once, for the hash)."""
        return {
            "name": self.name,
            "path": self.path.name if self.path is not None else None,
            "format": self.format,
            "count": self.count,
            "labelled": self.has_labels,
            "sha256": self.fingerprint(),
            "synthetic": self.synthetic,
            "notes": list(self.notes),
        }


@dataclass
class Subset(Dataset):
    """Some samples of another dataset, in a given order."""

    parent: Dataset
    indices: np.ndarray
    name: str
    path: Path | None = field(init=False)
    format: str = field(init=False)
    count: int = field(init=False)

    def __post_init__(self) -> None:
        wrong = self.indices[(self.indices < 0) | (self.indices >= self.parent.count)]
        if len(wrong):
            raise UsageError(f"sample {wrong[0]} is not in '{self.parent.name}' (0 to {self.parent.count - 1})")
        if not len(self.indices):
            raise UsageError(f"a part of '{self.parent.name}' would have no samples")
        self.path, self.format, self.plan = self.parent.path, self.parent.format, self.parent.plan
        self.synthetic, self.notes = self.parent.synthetic, self.parent.notes
        self.count = len(self.indices)
        self.labels = None if self.parent.labels is None else self.parent.labels[self.indices]

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples (see `Dataset.rows`)."""
        return self.parent.rows(size, self.indices if indices is None else self.indices[indices])

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the whole dataset's fingerprint and the indices."""
        digest = hashlib.sha256(self.parent.fingerprint().encode())
        digest.update(self.indices.astype("<i8").tobytes())
        return digest.hexdigest()


def hash_files(files: Sequence[Path], base: Path) -> str:
    """Return the SHA-256 (hex) of one file's bytes, or of the names and bytes of a folder's files.

    Args:
        files: The files, in any order.
        base: The file itself, or the folder that the names are relative to.

    Raises:
        DataError: A file cannot be read any more.
    """
    whole = hashlib.sha256()
    for file in sorted(files):
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256")
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}") from error
        if file == base:
            return content.hexdigest()
        whole.update(f"{file.relative_to(base).as_posix()}\0{content.hexdigest()}\n".encode())
    return whole.hexdigest()
