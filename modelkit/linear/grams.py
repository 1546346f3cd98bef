"""Second moments of what layers multiply their weights with: one streaming pass, memory that no sample adds to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from modelkit.algorithm.activations import check_finite, stream
from modelkit.data.dataset import Dataset
from modelkit.linear.matrix import Layer, Reading, readings_of
from modelkit.linear.sidebyside import Tap, run_both
from modelkit.progress import Progress, silent

BATCH = 64
# Rows of columns that are looked at: neighbouring places of an image say much the same.
MOST_ROWS = 32_768
ROWS_PER_COLUMN = 32
_GOLDEN = 0.6180339887498949
# Products of larger matrices are added in stripes, so that no second matrix of that size is needed.
_STRIPE = 1024


@dataclass
class LayerGram:
    """Sums over rows x of columns, float64.

    Attributes:
        xtx: Sum of x xᵀ, ``[groups, inputs, inputs]``; None where only squares were wanted.
        squares: Sum of the squares of each column, ``[groups, inputs]``: the diagonal of ``xtx``.
        total: Sum of x, ``[groups, inputs]``.
        cross: Sum of x yᵀ for other columns y of the same rows, ``[groups, inputs, others]``; None without.
        other_squares: Sum of the squares of y, ``[groups, others]``.
        other_total: Sum of y, ``[groups, others]``.
        count: How many rows.
    """

    xtx: np.ndarray | None = None
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))
    total: np.ndarray = field(default_factory=lambda: np.zeros(()))
    cross: np.ndarray | None = None
    other_squares: np.ndarray = field(default_factory=lambda: np.zeros(()))
    other_total: np.ndarray = field(default_factory=lambda: np.zeros(()))
    count: int = 0

    @property
    def mean(self) -> np.ndarray:
        """Mean of each column, ``[groups, inputs]``."""
        return self.total / max(self.count, 1)

    @property
    def other_mean(self) -> np.ndarray:
        """Mean of each of the other columns, ``[groups, others]``."""
        return self.other_total / max(self.count, 1)

    def add(self, columns: np.ndarray, others: np.ndarray | None = None, *, full: bool = True) -> None:
        """Take in rows.

        Args:
            columns: ``[rows, groups, inputs]``.
            others: ``[rows, groups, others]``, such as the outputs of the original in the same places.
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
            y = others.transpose(1, 0, 2).astype(np.float64)
            self.cross = _plus(self.cross, x, y)
            self.other_squares = self.other_squares + np.einsum("gnk,gnk->gk", y, y)
            self.other_total = self.other_total + y.sum(axis=1)


def _plus(old: np.ndarray | None, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Add leftᵀ right of each group, ``[groups, rows, any]``."""
    if old is None:
        old = np.zeros((len(left), left.shape[2], right.shape[2]))
    if left.shape[2] <= 4 * _STRIPE:
        old += left.transpose(0, 2, 1) @ right
        return old
    for start in range(0, left.shape[2], _STRIPE):
        part = slice(start, start + _STRIPE)
        old[:, part] += left[:, :, part].transpose(0, 2, 1) @ right
    return old


def collect(
    model: ir.Model,
    layers: Sequence[Layer],
    data: Dataset,
    *,
    limit: int,
    full: bool = True,
    threads: int = 0,
    progress: Progress = silent,
) -> dict[str, LayerGram]:
    """Sum up the columns that go into some layers, in one pass over the data.

    Of a layer that is applied in very many places (an image, a long sequence) about ``max(MOST_ROWS,
    ROWS_PER_COLUMN * inputs)`` rows count, evenly spaced over places and samples, always the same ones.

    Args:
        model: The model as it is now.
        layers: Which layers (``modelkit.linear.matrix.layer_of``); those that cannot be observed are left out of the
            result (``readings_of`` says why).
        data: Inputs.
        limit: At most this many samples.
        full: False for ``squares`` only.
        threads: Threads of the forward pass.
        progress: Told how far it is.

    Returns:
        By the name of the layer's weight; layers that read the same columns share one object.

    Raises:
        DataError: An activation became infinite or NaN.
    """
    grams: dict[tuple[object, ...], LayerGram] = {}
    result: dict[str, LayerGram] = {}
    todo: dict[str, list[tuple[Reading, LayerGram, int]]] = {}
    for layer in layers:
        readings = readings_of(layer, model)
        if isinstance(readings, str):
            continue
        key = tuple(reading.key for reading in readings)
        fresh = key not in grams
        gram = result[layer.name] = grams.setdefault(key, LayerGram())
        for reading in readings if fresh else ():
            todo.setdefault(reading.source, []).append((reading, gram, layer.inputs))
    count = min(limit, data.count)
    share = min(BATCH, count) / count
    for seen in stream(
        model,
        list(todo),
        lambda: data.batches(BATCH, limit),
        count=count,
        threads=threads,
        step="observing layers",
        progress=progress,
    ):
        for reading, gram, inputs in todo[seen.name]:
            gram.add(_columns(reading, seen.values, seen.sample, inputs, share), full=full)
    return result


def collect_beside(
    model: ir.Model,
    original: ir.Model,
    layers: Sequence[Layer],
    weights: Mapping[str, np.ndarray],
    data: Dataset,
    *,
    limit: int,
    full: bool = True,
    threads: int = 0,
) -> dict[str, LayerGram]:
    """Sum up the columns of layers that read the same, and what the original's layers gave in the same places.

    Args:
        model: The model as it is now.
        original: The model before anything was pruned, with the same names and shapes.
        layers: Layers whose readings have the same keys.
        weights: The original weights as matrices, by name.
        data: Inputs.
        limit: At most this many samples.
        full: False for ``squares`` and ``cross`` only.
        threads: Threads of the forward passes.

    Returns:
        By the name of the layer's weight; ``cross`` is with the original's outputs (without bias), ``[groups,
        inputs, outputs]``. ``xtx`` is the same object for all.
    """
    readings = readings_of(layers[0], model)
    assert not isinstance(readings, str)
    sources = [reading.source for reading in readings]
    stacked = np.concatenate([weights[layer.name] for layer in layers], axis=1)
    count, seen, sums = min(limit, data.count), 0, LayerGram()
    for now, before in run_both(Tap(model, sources, threads), Tap(original, sources, threads), data, limit):
        taken = min(len(next(iter(now.values()))), count)
        for reading in readings:
            options = seen, layers[0].inputs, taken / count
            columns = _columns(reading, now[reading.source], *options)
            old = _columns(reading, before[reading.source], *options)
            sums.add(columns, np.einsum("ngk,gok->ngo", old, stacked, optimize=True), full=full)
        seen += taken
    assert sums.cross is not None
    ends = np.cumsum([layer.outputs for layer in layers])[:-1]
    parts = [np.split(each, ends, axis=-1) for each in (sums.cross, sums.other_squares, sums.other_total)]
    return {
        layer.name: replace(sums, cross=cross, other_squares=squares, other_total=total)
        for layer, cross, squares, total in zip(layers, *parts, strict=True)
    }


def _columns(reading: Reading, values: np.ndarray, sample: int, inputs: int, share: float) -> np.ndarray:
    """Columns of one batch, a share of all samples, thinned out where there are very many."""
    check_finite(reading.source, values, f"near sample {sample}")
    rows = reading.rows(values)
    wanted = int(np.ceil(max(MOST_ROWS, ROWS_PER_COLUMN * inputs) * share))
    if rows <= wanted:
        return reading.columns(values)
    # Evenly spaced, starting elsewhere in each batch so that not always the same places of an image are seen.
    start = (sample * _GOLDEN) % 1.0
    picked = ((np.arange(wanted) + start) * (rows / wanted)).astype(np.int64)
    return reading.columns(values, np.minimum(picked, rows - 1))
