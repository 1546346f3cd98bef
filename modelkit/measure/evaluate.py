"""One pass over a data set that measures quality and fidelity of several sessions side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from modelkit.errors import DataError, ModelError
from modelkit.measure import scores
from modelkit.measure.fidelity import FidelityMeter
from modelkit.measure.quality import QualityMeter, Task, class_axis_by_labels, detect_task
from modelkit.progress import Progress, silent
from modelkit.runtime import input_specs, output_specs, run

if TYPE_CHECKING:
    import onnxruntime as ort


class BatchLike(Protocol):
    """What is read of a batch."""

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """Arrays by input name, rows first."""

    @property
    def labels(self) -> np.ndarray | None:
        """Labels, rows first; None where there are none."""

    @property
    def axes(self) -> Mapping[str, int | None]:
        """For each input the axis that counts rows; None where it is shared by all of them."""

    @property
    def valid(self) -> int:
        """Rows from the start that count; a fixed-batch model's last batch is padded."""


@dataclass(frozen=True)
class Evaluation:
    """What one session reached.

    Attributes:
        quality: Metrics against labels, the primary one first; None without labels.
        fidelity: Worst agreement with the reference over all outputs; None for the reference itself and
            where there is no reference.
        outputs: Fidelity of each output by name.
        task: Task that the quality is about.
        rows: Rows that counted.
    """

    quality: dict[str, float] | None
    fidelity: dict[str, float | None] | None
    outputs: dict[str, dict[str, float | None]] = field(default_factory=dict)
    task: Task = Task.none
    rows: int = 0


class Remembered:
    """Outputs of the reference, so that it need not run again for each session that is compared with it.

    Good for one reference and one way of cutting one data set into batches.

    Args:
        most_bytes: What may be held; batches beyond it are run again each time.
    """

    def __init__(self, most_bytes: int = 64 << 20) -> None:
        self._left = most_bytes
        self._outputs: dict[int, list[np.ndarray]] = {}

    def outputs(self, batch: int, run: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
        """Return the outputs of a batch, by its number; ``run`` computes them where they are not held."""
        if batch in self._outputs:
            return self._outputs[batch]
        found = run()
        size = sum(array.nbytes for array in found)
        # The size of strings is not told by their array.
        if size <= self._left and all(array.dtype != object for array in found):
            self._outputs[batch] = found
            self._left -= size
        return found


def run_quality(
    session: ort.InferenceSession, batches: Iterable[BatchLike], task: Task | None = None
) -> dict[str, float] | None:
    """Measure one session's quality.

    Args:
        session: What to run.
        batches: Batches with labels.
        task: What the first output means; None to tell from the first batch.

    Returns:
        See `QualityMeter.result`; None where the batches have no labels.

    Raises:
        DataError: As `evaluate_sessions`.
    """
    return evaluate_sessions({"model": session}, batches, reference=None, task=task)["model"].quality


def evaluate_sessions(
    sessions: Mapping[str, ort.InferenceSession],
    batches: Iterable[BatchLike],
    *,
    reference: str | None,
    progress: Progress = silent,
    total: int = 0,
    task: Task | None = None,
    remembered: Remembered | None = None,
) -> dict[str, Evaluation]:
    """Run every batch once through every session and compare, in memory that does not grow with the data.

    Args:
        sessions: Sessions by name.
        batches: Any iterable of batches; gone through once.
        reference: Name of the session that the others must agree with; None for quality only.
        progress: Told after each batch, in rows.
        total: Rows in all, for the progress; 0 where not known.
        task: What the first output means; None to tell from the first batch.
        remembered: Holds the outputs of the reference (or of the first session) between calls.

    Returns:
        An evaluation for each session.

    Raises:
        DataError: There are no rows, an input is missing, or labels do not fit.
        ModelError: A session's outputs differ from the reference's in number or shape.
        ResourceError: onnxruntime failed while running.
    """
    if reference is not None and reference not in sessions:
        raise ModelError(f"the reference '{reference}' is not among the models: {', '.join(sessions)}")
    first = reference if reference is not None else next(iter(sessions))
    order = [first, *(name for name in sessions if name != first)]
    wanted = {name: input_specs(session) for name, session in sessions.items()}
    outputs = _match_outputs(sessions, order)
    quality: dict[str, QualityMeter] = {}
    fidelity: dict[str, FidelityMeter] = {}
    rows = 0
    for number, batch in enumerate(batches):
        size = _rows(batch)
        expected: list[np.ndarray] = []
        for name in order:
            feed = {spec.name: _input(batch, spec.name, spec.dtype) for spec in wanted[name]}
            call = partial(run, sessions[name], feed, name, outputs[name])
            found = remembered.outputs(number, call) if remembered is not None and name == first else call()
            if name == first:
                expected = found
                if rows == 0:
                    task = _task(found[0], batch.labels) if task is None or batch.labels is None else task
                    if task is not Task.none:
                        quality = {each: QualityMeter(task) for each in order}
                    if reference is not None:
                        axis = _class_axis(found[0], batch.labels) if task is Task.classification else None
                        fidelity = {
                            each: FidelityMeter(outputs[first], classes=_CLASSES[task], axis=axis)
                            for each in order[1:]
                        }
            if name in fidelity:
                fidelity[name].update(expected, found, batch.valid, size)
            if name in quality and batch.labels is not None:
                quality[name].update(found, batch.labels, batch.valid)
        rows += batch.valid
        progress("evaluating", rows, total)
    if rows == 0:
        raise DataError("the data set has no rows to evaluate")
    return {
        name: Evaluation(
            quality[name].result() if name in quality else None,
            fidelity[name].result() if name in fidelity else None,
            fidelity[name].per_output() if name in fidelity else {},
            task or Task.none,
            rows,
        )
        for name in sessions
    }


# Whether the first output is class scores, as far as the task tells.
_CLASSES = {Task.classification: True, Task.binary: True, Task.regression: False, Task.none: None}


def _task(output: np.ndarray, labels: np.ndarray | None) -> Task:
    return detect_task(output.shape, output.dtype, labels)


def _class_axis(output: np.ndarray, labels: np.ndarray | None) -> int | None:
    return None if labels is None else class_axis_by_labels((len(labels), *output.shape[1:]), labels.shape)


def _rows(batch: BatchLike) -> int:
    """Rows in a batch with its padding, counted along the axis that the batch says."""
    for name, axis in batch.axes.items():
        if axis is not None:
            return int(batch.inputs[name].shape[axis])
    return batch.valid


def _input(batch: BatchLike, name: str, dtype: np.dtype) -> np.ndarray:
    if name not in batch.inputs:
        raise DataError(f"the data set lacks the input '{name}'", hint=f"it has {', '.join(sorted(batch.inputs))}")
    array = batch.inputs[name]
    # A float16 or bfloat16 twin takes the same data as the original.
    if array.dtype != dtype and scores.is_float(array) and "float" in dtype.name:
        return array.astype(dtype)
    return array


def _match_outputs(sessions: Mapping[str, ort.InferenceSession], order: list[str]) -> dict[str, list[str]]:
    """Outputs of each session in the reference's order: by name, or by place where the names differ."""
    names = {name: [spec.name for spec in output_specs(sessions[name])] for name in order}
    expected = names[order[0]]
    matched = {}
    for name, own in names.items():
        if set(own) >= set(expected):
            matched[name] = expected
        elif len(own) == len(expected):
            matched[name] = own
        else:
            raise ModelError(f"the model '{name}' has the outputs {', '.join(own)}; expected {', '.join(expected)}")
    return matched
