"""What ranges activations take on calibration data: one streaming pass, constant memory, all data used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelkit.algorithm.activations import check_finite, stream
from modelkit.data.dataset import Batch
from modelkit.progress import Progress, silent

BINS = 8192
# Far below any activation that matters, and far enough from float32's end that bins have a width.
_SMALLEST_REACH = 2.0**-100


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
    histograms = {name: Histogram() for name in dict.fromkeys(tensors)}
    for seen in stream(model, tensors, batches, count=count, threads=threads, progress=progress):
        _add(histograms[seen.name], seen.name, seen.values, seen.sample)
        if also is not None:
            also(seen.name, seen.values)
    return histograms


def _add(histogram: Histogram, name: str, values: np.ndarray, sample: int) -> None:
    check_finite(name, values, f"near calibration sample {sample}")
    histogram.update(values)
