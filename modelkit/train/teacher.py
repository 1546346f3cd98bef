"""What a teacher says: the outputs of an onnxruntime session for each sample, kept or computed as they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from modelkit.data.dataset import Batch, Dataset
from modelkit.errors import DataError, ModelError, ResourceError
from modelkit.files import Staging, sha256
from modelkit.graph.run import session_of
from modelkit.measure.scores import are_probabilities, as_rows, class_axis, is_float
from modelkit.progress import Progress, silent
from modelkit.runtime import input_specs, make_session, output_specs, run

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort

    from modelkit.train.config import TrainOptions

KEPT_BYTES = 1 << 30
"""Outputs that take up to so many bytes are kept; in files where there is a folder, else in memory."""


class Targets(Protocol):
    """The teacher's outputs for the batches of one dataset."""

    def of(self, numbers: np.ndarray, inputs: Mapping[str, np.ndarray], valid: int) -> dict[str, np.ndarray]:
        """Return the outputs for a batch.

        Args:
            numbers: Numbers of its samples in the dataset, ``[valid]``.
            inputs: What the model is fed, fill-ups of a fixed batch included.
            valid: How many samples are real.

        Returns:
            Each output's rows of the real samples, ``[valid, ...]``.
        """


class Teacher:
    """A model whose outputs others learn.

    Args:
        session: The loaded model.
        key: What tells this model from others, such as the SHA-256 of its file; "" keeps no files.
        folder: Where files of outputs are kept for later runs; None keeps them in memory.
    """

    def __init__(self, session: ort.InferenceSession, *, key: str = "", folder: Path | None = None) -> None:
        self._session, self.key, self._folder = session, key, folder
        self._specs = {spec.name: spec for spec in input_specs(session)}
        self.outputs = [spec.name for spec in output_specs(session)]

    @classmethod
    def load(cls, path: Path, *, threads: int = 0, folder: Path | None = None) -> Teacher:
        """Load a model file as a teacher.

        Args:
            path: An ONNX file.
            threads: Threads of its inference; 0 lets onnxruntime choose.
            folder: Where files of outputs are kept for later runs.

        Raises:
            ModelError: onnxruntime cannot load it.
        """
        return cls(make_session(path, threads=threads), key=sha256(path), folder=folder)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute all outputs of a batch.

        Raises:
            ModelError: It takes an input that the data lacks.
            ResourceError: onnxruntime failed.
        """
        missing = [name for name in self._specs if name not in inputs]
        if missing:
            raise ModelError(f"the teacher takes the input '{missing[0]}', which the data lacks")
        feeds = {name: inputs[name].astype(spec.dtype, copy=False) for name, spec in self._specs.items()}
        return dict(zip(self.outputs, run(self._session, feeds, "teacher", self.outputs), strict=True))

    def targets(self, dataset: Dataset, batch: int, *, live: bool = False, progress: Progress = silent) -> Targets:
        """Prepare the outputs for a dataset.

        Args:
            dataset: The samples.
            batch: Samples to run at a time.
            live: Inputs change from epoch to epoch, so that nothing can be kept.
            progress: Told how many samples have been run.

        Raises:
            ModelError: An output has no row for each sample.
            ResourceError: onnxruntime failed, or the disk is full.
        """
        if live:
            return _Live(self)
        first = next(iter(dataset.batches(batch)))
        sample = _rows(self.run(first.inputs), first)
        size = sum(array[:1].nbytes * dataset.count for array in sample.values())
        if size > KEPT_BYTES or any(array.dtype.hasobject for array in sample.values()):
            return _Live(self)
        if self._folder is None or not self.key:
            return _Kept(self._all(dataset, batch, sample, progress))
        return _Kept(self._stored(dataset, batch, sample, progress, self._folder))

    def _all(
        self, dataset: Dataset, batch: int, sample: Mapping[str, np.ndarray], progress: Progress
    ) -> dict[str, np.ndarray]:
        kept = {name: np.empty((dataset.count, *array.shape[1:]), array.dtype) for name, array in sample.items()}
        done = 0
        for each in dataset.batches(batch):
            for name, array in _rows(self.run(each.inputs), each).items():
                if array.shape[1:] != kept[name].shape[1:]:
                    raise ModelError(f"the teacher's output '{name}' changes its shape from batch to batch")
                kept[name][done : done + each.valid] = array
            done += each.valid
            progress("running the original", done, dataset.count)
        return kept

    def _stored(
        self, dataset: Dataset, batch: int, sample: Mapping[str, np.ndarray], progress: Progress, folder: Path
    ) -> dict[str, np.ndarray]:
        """Outputs in npy files that are mapped into memory, named by what they depend on."""
        key = hashlib.sha256(f"{self.key}\0{dataset.fingerprint()}".encode()).hexdigest()[:32]
        files = {name: f"teacher-{key}-{number}.npy" for number, name in enumerate(sample)}
        found = _mapped(folder, files, dataset.count, sample)
        if found is None:
            with Staging(folder) as stage:
                for name, array in self._all(dataset, batch, sample, progress).items():
                    with stage.path(files[name]).open("wb") as file:
                        np.save(file, array, allow_pickle=False)
                stage.publish(list(files.values()), force=True)
            found = _mapped(folder, files, dataset.count, sample)
        if found is None:
            raise ResourceError(f"the teacher's outputs in '{folder}' changed while they were read")
        return found


class Ensemble(Teacher):
    """Several teachers that speak with one voice: the weighted mean of what they say.

    Outputs are paired with those of the first, by name or else by place. Probabilities are averaged as they are, and
    so are logits and other numbers; where some give probabilities and others logits, the logarithms of the former are
    taken.

    Args:
        members: The teachers.
        weights: Their weights, above 0.
        folder: Where files of outputs are kept for later runs.
        own: Outputs of the first that the others do not have, which are its own alone.
    """

    def __init__(
        self,
        members: Sequence[Teacher],
        weights: Sequence[float],
        *,
        folder: Path | None = None,
        own: Sequence[str] = (),
    ) -> None:
        total = sum(weights)
        self._members, self._weights, self._folder = list(members), [weight / total for weight in weights], folder
        keys = [f"{member.key}*{weight!r}" for member, weight in zip(members, self._weights, strict=True)]
        self.key = hashlib.sha256("\n".join(keys).encode()).hexdigest() if all(m.key for m in members) else ""
        self.outputs, self._own = members[0].outputs, set(own)
        self._probabilities: dict[str, list[bool]] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the mean of all outputs for a batch.

        Raises:
            ModelError: A teacher takes an input that the data lacks, or has other outputs than the first.
            ResourceError: onnxruntime failed.
        """
        first, *others = (member.run(inputs) for member in self._members)
        shared = {name: array for name, array in first.items() if name not in self._own}
        said = [shared, *(_paired(shared, each, number) for number, each in enumerate(others, 2))]
        return first | {name: self._mean(name, [each[name] for each in said]) for name in shared}

    def _mean(self, name: str, arrays: list[np.ndarray]) -> np.ndarray:
        if not all(is_float(array) for array in arrays):
            return arrays[0]
        if name not in self._probabilities:
            # Decided once, by the first batch: all batches must be averaged alike.
            axis = class_axis(arrays[0].shape)
            found = [axis is not None and are_probabilities(as_rows(array, axis)) for array in arrays]
            self._probabilities[name] = found if any(found) and not all(found) else [False] * len(found)
        kinds = self._probabilities[name]
        arrays = [np.log(np.maximum(a, 1e-30)) if kind else a for a, kind in zip(arrays, kinds, strict=True)]
        mean = sum(weight * array for weight, array in zip(self._weights, arrays, strict=True))
        return np.asarray(mean, arrays[0].dtype)


def _paired(first: Mapping[str, np.ndarray], other: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """Another teacher's outputs under the names of the first."""
    named = other if other.keys() >= first.keys() else dict(zip(first, other.values(), strict=False))
    if any(name not in named or named[name].shape != array.shape for name, array in first.items()):
        raise ModelError(
            f"teacher {number} has the outputs {_shapes(other)}, and the first has {_shapes(first)}",
            "teachers that are averaged must have outputs of the same shapes",
        )
    return named


def _shapes(outputs: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())


def check_target(data: Dataset, teacher: Teacher | None, model: str) -> None:
    """Refuse a training that has nothing to learn from.

    Args:
        data: What would be trained on.
        teacher: Who would be followed.
        model: What could be, for the hint: "the original model".

    Raises:
        DataError: There are neither labels nor a teacher.
    """
    if not data.has_labels and teacher is None:
        raise DataError(
            f"'{data.name}' has no labels, so there is nothing to train on",
            hint=f"give labels, or {model} as a teacher to follow",
        )


def original_teacher(model: ir.Model, options: TrainOptions, data: Dataset) -> Teacher | None:
    """A model as the teacher of its own transformed copies, or None where the labels alone are learned."""
    if options.alpha == 1 and data.has_labels and options.loss != "distill":
        return None
    return Teacher(session_of(model, threads=options.threads))


def _mapped(
    folder: Path, files: Mapping[str, str], count: int, sample: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Open the files of an earlier run; None where one is missing, damaged or of another shape."""
    arrays = {}
    for name, file in files.items():
        try:
            array = np.load(folder / file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if array.shape != (count, *sample[name].shape[1:]) or array.dtype != sample[name].dtype:
            return None
        arrays[name] = array
    return arrays


def _rows(outputs: Mapping[str, np.ndarray], batch: Batch) -> dict[str, np.ndarray]:
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) not in (batch.valid, batch.fed):
            raise ModelError(
                f"the teacher's output '{name}' of shape {list(array.shape)} has no row for each sample",
                "train with labels, or export the model with the batch as the first dimension of its outputs",
            )
    return {name: array[: batch.valid] for name, array in outputs.items()}


class _Live:
    """Runs the teacher on every batch."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def of(self, numbers: np.ndarray, inputs: Mapping[str, np.ndarray], valid: int) -> dict[str, np.ndarray]:
        return {name: array[:valid] for name, array in self._teacher.run(inputs).items()}


class _Kept:
    """Outputs that were computed once."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays

    def of(self, numbers: np.ndarray, inputs: Mapping[str, np.ndarray], valid: int) -> dict[str, np.ndarray]:
        return {name: array[numbers] for name, array in self._arrays.items()}
