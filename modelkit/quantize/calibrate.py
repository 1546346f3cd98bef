"""What ranges activations take on calibration data: one streaming pass, constant memory, all data used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from modelkit.data.dataset import Batch
from modelkit.errors import DataError
from modelkit.graph.run import session_of
from modelkit.graph.stripped import strip
from modelkit.progress import Progress, silent

BINS = 8192
# Far below any activation that matters, and far enough from float32's end that bins have a width.
_SMALLEST_REACH = 2.0**-100
# Activations of one run that may stand in memory at once; a model with more of them is run in several parts.
CHUNK_BYTES = 192 * 1024 * 1024
_UNKNOWN_BYTES = 8 << 20


@dataclass
class Histogram:
    """Counts of values in bins over [-reach, reach), where reach is a power of two.

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
        # What underflows to -0 belongs left of the middle.
        np.minimum(index, BINS // 2 - 1, out=index, where=flat < 0)
        self.counts += np.bincount(index, minlength=BINS)

    def _grow(self, peak: float) -> None:
        if self.reach == 0.0:
            self.reach = max(math.ldexp(1.0, math.frexp(peak)[1]), _SMALLEST_REACH)
        # A value that equals reach lies outside: counted in the last bin it would lie elsewhere after a merge.
        while self.reach <= peak:
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
    first = next(iter(batches()), None)
    if first is None or not histograms:
        return histograms
    parts = _parts(model, inner, first.inputs)
    done = 0
    for number, part in enumerate(parts):
        session = session_of(model, extra_outputs=part, threads=threads)
        seen = 0
        for batch in batches():
            progress("calibrating", done + seen, count * len(parts))
            # An empty list would mean all outputs to onnxruntime.
            found = dict(zip(part, session.run(part, batch.inputs) if part else [], strict=True))
            padded = _padded_rows(batch)
            found = {
                name: values[: batch.valid] if padded and values.ndim and len(values) == padded else values
                for name, values in found.items()
            }
            if number == 0:
                found.update((name, batch.real(name)) for name in batch.inputs if name in histograms)
            for name, values in found.items():
                _add(histograms[name], name, values, seen)
                if also is not None:
                    also(name, values)
            seen += batch.valid
        done += seen
    progress("calibrating", count * len(parts), count * len(parts))
    return histograms


def _padded_rows(batch: Batch) -> int:
    """Rows of a batch that was filled up by repeating its last sample; 0 where it was not."""
    axes = {name: batch.axes.get(name, 0 if array.ndim else None) for name, array in batch.inputs.items()}
    rows = max((batch.inputs[name].shape[axis] for name, axis in axes.items() if axis is not None), default=0)
    return rows if rows > batch.valid else 0


def _add(histogram: Histogram, name: str, values: np.ndarray, sample: int) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            f"the activation '{name}' is infinite or NaN near calibration sample {sample}",
            hint="check the inputs' scale: does the model expect them normalised?",
        )
    histogram.update(values)


def _parts(model: ir.Model, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Split the tensors so that the outputs of one run stay within CHUNK_BYTES for batches like the first."""
    sizes = _sizes(model, feeds)
    parts: list[list[str]] = [[]]
    room = CHUNK_BYTES
    for name in names:
        size = sizes.get(name, _UNKNOWN_BYTES)
        if parts[-1] and size > room:
            parts.append([])
            room = CHUNK_BYTES
        parts[-1].append(name)
        room -= size
    return parts


def _sizes(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Bytes of each value for given inputs, as far as they can be inferred."""
    proto, _ = strip(model)
    del proto.graph.value_info[:]
    for entry in proto.graph.input:
        if entry.name in feeds:
            entry.type.tensor_type.ClearField("shape")
            for length in feeds[entry.name].shape:
                entry.type.tensor_type.shape.dim.add().dim_value = length
    for entry in proto.graph.output:
        # Declared for other inputs: it would only contradict.
        entry.type.tensor_type.ClearField("shape")
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # the C++ code raises many classes; without sizes the guess has to do
        return {}
    sizes: dict[str, int] = {}
    for entry in [*proto.graph.value_info, *proto.graph.output]:
        shape = entry.type.tensor_type.shape
        if entry.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in shape.dim):
            sizes[entry.name] = 4 * math.prod(dim.dim_value for dim in shape.dim)
    return sizes
