"""Second moments of what layers multiply their weights with: one streaming pass, memory that no sample adds to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelkit.activations import Seen, stream
from modelkit.data.dataset import Dataset
from modelkit.errors import DataError
from modelkit.progress import Progress, silent
from modelkit.prune.matrix import Layer, Reading, readings_of

BATCH = 64
# Rows of columns that are looked at: neighbouring places of an image say much the same.
MOST_ROWS = 32_768
ROWS_PER_COLUMN = 32
_GOLDEN = 0.6180339887498949


@dataclass
class LayerGram:
    """Sums over rows x of columns, float64.

    Attributes:
        xtx: Sum of x xᵀ, ``[groups, inputs, inputs]``; None where only squares were wanted.
        squares: Sum of the squares of each column, ``[groups, inputs]``: the diagonal of ``xtx``.
        total: Sum of x, ``[groups, inputs]``.
        cross: Sum of x yᵀ for other columns y of the same rows, ``[groups, inputs, others]``; None without.
        count: How many rows.
    """

    xtx: np.ndarray | None = None
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))
    total: np.ndarray = field(default_factory=lambda: np.zeros(()))
    cross: np.ndarray | None = None
    count: int = 0

    @property
    def mean(self) -> np.ndarray:
        """Mean of each column, ``[groups, inputs]``."""
        return self.total / max(self.count, 1)

    def add(self, columns: np.ndarray, others: np.ndarray | None = None, *, full: bool = True) -> None:
        """Take in rows.

        Args:
            columns: ``[rows, groups, inputs]``.
            others: ``[rows, groups, others]``, such as the inputs or outputs of the original in the same places.
            full: Whether ``xtx`` is wanted, or only its diagonal.
        """
        # [groups, rows, inputs]: one product for each group.
        x = np.ascontiguousarray(columns.transpose(1, 0, 2), dtype=np.float64)
        self.squares = self.squares + np.einsum("gnk,gnk->gk", x, x)
        self.total = self.total + x.sum(axis=1)
        self.count += x.shape[1]
        if full:
            self.xtx = _plus(self.xtx, x, x)
        if others is not None:
            self.cross = _plus(self.cross, x, others.transpose(1, 0, 2).astype(np.float64))


def _plus(old: np.ndarray | None, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if old is None:
        old = np.zeros((len(left), left.shape[2], right.shape[2]))
    for group in range(len(left)):  # one at a time: a large one would need its room twice
        old[group] += left[group].T @ right[group]
    return old


def collect(
    model: ir.Model,
    layers: Sequence[Layer],
    data: Dataset,
    *,
    limit: int,
    full: bool = True,
    original: ir.Model | None = None,
    threads: int = 0,
    progress: Progress = silent,
) -> dict[str, LayerGram]:
    """Sum up the columns that go into some layers.

    Of a layer that is applied in very many places (an image, a long sequence) at most ``max(MOST_ROWS,
    ROWS_PER_COLUMN * inputs)`` rows count, evenly spaced over places and samples, always the same ones.

    Args:
        model: The model as it is now.
        layers: Which layers (``modelkit.prune.matrix.layer_of``); those that cannot be observed are left out of the
            result (``readings_of`` says why).
        data: Inputs.
        limit: At most this many samples.
        full: False for ``squares`` only.
        original: The model before anything was pruned, with the same names: ``cross`` then holds the sums with its
            columns in the same places. Both models are run once for each layer.
        threads: Threads of the forward pass.
        progress: Told how far it is.

    Returns:
        By the name of the layer's weight; layers that read the same columns share one object.

    Raises:
        DataError: An activation became infinite or NaN.
    """
    readings = {
        layer.name: (layer, found)
        for layer in layers
        if (found := readings_of(layer, model)) and not isinstance(found, str)
    }
    grams: dict[tuple[object, ...], LayerGram] = {}
    result: dict[str, LayerGram] = {}
    todo: dict[str, list[tuple[Reading, LayerGram, int]]] = {}
    for name, (layer, found) in readings.items():
        key = tuple(reading.key for reading in found)
        fresh = key not in grams
        gram = result[name] = grams.setdefault(key, LayerGram())
        for reading in found if fresh else ():
            todo.setdefault(reading.source, []).append((reading, gram, layer.inputs))
    count = min(limit, data.count)

    def run(of: ir.Model, sources: Sequence[str]) -> Iterator[Seen]:
        return stream(
            of,
            sources,
            lambda: data.batches(BATCH, limit),
            count=count,
            threads=threads,
            step="observing layers",
            progress=progress,
        )

    if original is None:
        for seen in run(model, list(todo)):
            for reading, gram, inputs in todo[seen.name]:
                gram.add(_columns(reading, seen, inputs, count), full=full)
        return result
    for source, wanted in todo.items():
        for seen, before in zip(run(model, [source]), run(original, [source]), strict=True):
            for reading, gram, inputs in wanted:
                gram.add(_columns(reading, seen, inputs, count), _columns(reading, before, inputs, count), full=full)
    return result


def _columns(reading: Reading, seen: Seen, inputs: int, count: int) -> np.ndarray:
    """Columns of one batch, thinned out where there are very many."""
    if not np.isfinite(seen.values).all():
        raise DataError(
            f"the activation '{seen.name}' is infinite or NaN near sample {seen.sample}",
            hint="check the inputs' scale: does the model expect them normalised?",
        )
    rows = reading.rows(seen.values)
    wanted = -(-max(MOST_ROWS, ROWS_PER_COLUMN * inputs) * min(BATCH, count) // count)
    if rows <= wanted:
        return reading.columns(seen.values)
    # Evenly spaced, starting elsewhere in each batch so that not always the same places of an image are seen.
    start = (seen.sample * _GOLDEN) % 1.0
    picked = ((np.arange(wanted) + start) * (rows / wanted)).astype(np.int64)
    return reading.columns(seen.values, np.minimum(picked, rows - 1))
