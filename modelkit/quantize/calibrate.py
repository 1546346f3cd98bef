"""What ranges activations take on calibration data: one streaming pass, constant memory, all data used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Batch
from modelkit.errors import DataError
from modelkit.graph.run import session_of
from modelkit.progress import Progress, silent

BINS = 8192
# Activations of one run that may stand in memory at once; a model with more of them is run in several parts.
CHUNK_BYTES = 192 * 1024 * 1024


@dataclass
class Histogram:
    """Counts of values in bins over (-reach, reach), where reach is a power of two.

    When a value lies outside, reach doubles and bins merge in pairs, so the counts do not depend on the order or
    the batches in which values came, and one pass is enough.

    Attributes:
        reach: Half the width of the range; 0 until the first non-zero value.
        counts: int64 [BINS].
        low: Smallest value seen.
        high: Largest value seen.
        zeros: Values that were exactly zero (not in ``counts``).
    """

    reach: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    low: float = np.inf
    high: float = -np.inf
    zeros: int = 0

    def update(self, values: np.ndarray) -> None:
        """Add values of any shape; NaN and infinite ones are the caller's to refuse."""
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(abs(low), abs(high))
        if peak == 0:
            self.zeros += flat.size
            return
        self._grow(peak)
        flat = flat[flat != 0]
        self.zeros += values.size - flat.size
        index = np.floor(flat * np.float32(BINS / 2 / self.reach)).astype(np.int32) + BINS // 2
        np.clip(index, 0, BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=BINS)

    def _grow(self, peak: float) -> None:
        if self.reach == 0.0:
            self.reach = float(2.0 ** np.ceil(np.log2(peak)))
        while self.reach < peak:
            quarter = BINS // 4
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, dtype=np.int64)
            self.counts[quarter : 3 * quarter] = merged
            self.reach *= 2

    def centers(self) -> np.ndarray:
        """Middle of each bin, float64 [BINS]."""
        return (np.arange(BINS) + 0.5 - BINS / 2) * (2 * self.reach / BINS)


def observe(
    model: ir.Model,
    tensors: Sequence[str],
    batches: Callable[[], Iterable[Batch]],
    *,
    count: int,
    threads: int = 0,
    also: Callable[[str, np.ndarray], None] | None = None,
    progress: Progress = silent,
) -> dict[str, Histogram]:
    """Run the model over data and collect a histogram for each tensor.

    Args:
        model: The float model.
        tensors: Names of float values of the main graph (its inputs too).
        batches: Starts a new pass over the data; called once for each part the outputs are taken in.
        count: Samples in a pass, for the progress.
        threads: Threads of the forward pass.
        also: Shown each tensor's values batch by batch, for what else one wants to know of them.
        progress: Called after each batch.

    Raises:
        DataError: An activation became infinite or NaN; it is named with the sample.
    """
    inputs = {str(value.name) for value in model.graph.inputs}
    inner = [name for name in dict.fromkeys(tensors) if name not in inputs]
    histograms = {name: Histogram() for name in dict.fromkeys(tensors)}
    parts = _parts(model, inner)
    done = 0
    own_outputs = {str(value.name) for value in model.graph.outputs}
    for number, part in enumerate(parts):
        session = session_of(model, extra_outputs=part, threads=threads)
        wanted = [name for name in part if name not in own_outputs] + [name for name in part if name in own_outputs]
        seen = 0
        for batch in batches():
            progress("calibrating", done + seen, count * len(parts))
            for name, values in zip(wanted, session.run(wanted, batch.inputs), strict=True):
                rows = _real_rows(values, batch)
                _add(histograms[name], name, rows, seen)
                if also is not None:
                    also(name, rows)
            if number == 0:
                for name in batch.inputs:
                    if name in histograms:
                        rows = batch.real(name)
                        _add(histograms[name], name, rows, seen)
                        if also is not None:
                            also(name, rows)
            seen += batch.valid
        done += seen
    progress("calibrating", count * len(parts), count * len(parts))
    return histograms


def _real_rows(values: np.ndarray, batch: Batch) -> np.ndarray:
    """Cut rows that only pad a fixed batch."""
    rows = max((array.shape[0] for array in batch.inputs.values() if array.ndim), default=0)
    if batch.valid < rows and values.ndim and values.shape[0] == rows:
        return values[: batch.valid]
    return values


def _add(histogram: Histogram, name: str, values: np.ndarray, sample: int) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            f"the activation '{name}' is infinite or NaN near calibration sample {sample}",
            hint="check the inputs' scale: does the model expect them normalised?",
        )
    histogram.update(values)


def _parts(model: ir.Model, names: Sequence[str]) -> list[list[str]]:
    """Split the tensors so that the outputs of one run stay within CHUNK_BYTES for a batch of 8."""
    sizes = {
        str(value.name): _bytes(value) for node in model.graph for value in node.outputs if value.name is not None
    }
    parts: list[list[str]] = [[]]
    room = CHUNK_BYTES
    for name in names:
        size = sizes.get(name, 1 << 20) * 8
        if parts[-1] and size > room:
            parts.append([])
            room = CHUNK_BYTES
        parts[-1].append(name)
        room -= size
    return parts


def _bytes(value: ir.Value) -> int:
    if value.shape is None:
        return 1 << 20
    # An unnamed dimension counts 1: the batch is accounted for by the caller.
    return 4 * int(np.prod([d if isinstance(d, int) else 1 for d in value.shape.dims], dtype=np.int64))
