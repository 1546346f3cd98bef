"""Which weights stay, given a score for each: free, N of M along the inputs, or whole blocks.

Scores and masks are ``[groups, outputs, inputs]`` as in ``modelkit.linear.matrix``; among equal scores earlier ones
stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pattern:
    """A pattern of zeros.

    Attributes:
        first: N of N:M, or the outputs of a block.
        second: M of N:M, or the inputs of a block.
        blocks: Whether it is blocks.
    """

    first: int
    second: int
    blocks: bool

    def __str__(self) -> str:
        return f"{self.first}{'x' if self.blocks else ':'}{self.second}"


def parse(text: str) -> Pattern:
    """Read "2:4" or "4x1"; the config has checked it."""
    first, sign, second = re.split("([:x])", text)
    return Pattern(int(first), int(second), sign == "x")


def lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Mask of an array, of any shape, without its ``count`` lowest entries."""
    flat = scores.reshape(-1)
    keep = np.ones(flat.size, dtype=bool)
    if count:
        # A stable order makes the result the same everywhere; reversed, so that earlier entries win ties.
        order = np.argsort(flat[::-1], kind="stable")
        keep[flat.size - 1 - order[:count]] = False
    return keep.reshape(scores.shape)


def count_of(sparsity: float, size: int) -> int:
    """How many of ``size`` numbers a share is, rounded down; 0.29 of 100 is 29 although 0.29 * 100 is less."""
    return int(sparsity * size + 1e-9 * size)


def drop(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Mask of an array, of any shape, without the share of its lowest entries."""
    return lowest(scores, count_of(sparsity, scores.size))


def lowest_of_rows(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Drop the same share of each row; what does not divide evenly is taken where it costs least.

    Args:
        scores: ``[..., inputs]``.
        sparsity: Share to drop, in [0, 1); over all rows the count is rounded down.
    """
    rows = scores.reshape(-1, scores.shape[-1])
    width = rows.shape[1]
    each, more = divmod(count_of(sparsity, rows.size), len(rows))
    order = width - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")
    keep = np.ones(rows.shape, dtype=bool)
    np.put_along_axis(keep, order[:, :each], False, axis=1)
    if more:
        following = np.take_along_axis(rows, order[:, each : each + 1], axis=1)[:, 0]
        chosen = ~lowest(following, more)
        keep[chosen, order[chosen, each]] = False
    return keep.reshape(scores.shape)


def n_of_m(scores: np.ndarray, n: int, m: int, run: int) -> np.ndarray:
    """Keep the N best of every M neighbours; of the shorter rest of a run at most N too.

    Padding a row with zeros to a multiple of M, as sparse kernels do, therefore always gives a valid pattern.

    Args:
        scores: ``[..., inputs]``.
        n: How many stay.
        m: Of how many.
        run: Length of the runs that groups must not cross; divides ``inputs``.
    """
    lead, tail = scores.shape[:-1], -run % m
    runs = scores.reshape(*lead, -1, run)
    padded = np.pad(runs, [(0, 0)] * (runs.ndim - 1) + [(0, tail)], constant_values=-np.inf)
    groups = padded.reshape(*padded.shape[:-1], -1, m)
    order = np.argsort(-groups, axis=-1, kind="stable")
    keep = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(keep, order[..., :n], True, axis=-1)
    return keep.reshape(padded.shape)[..., :run].reshape(scores.shape)


def blocks(scores: np.ndarray, rows: int, columns: int, run: int, sparsity: float) -> np.ndarray:
    """Drop whole blocks, those with the lowest mean score; at the edges blocks are smaller.

    Args:
        scores: ``[groups, outputs, inputs]``.
        rows: Outputs of a block.
        columns: Inputs of a block.
        run: Length of the runs of inputs that a block must not cross.
        sparsity: Share to drop; blocks go until the next would exceed it.
    """
    groups, outputs, inputs = scores.shape
    by_row = np.arange(outputs) // rows
    per_run = -(-run // columns)
    by_column = np.arange(inputs) // run * per_run + np.arange(inputs) % run // columns
    shape = (groups, int(by_row[-1]) + 1, int(by_column[-1]) + 1)
    number = (by_row[:, None] * shape[2] + by_column)[None] + np.arange(groups)[:, None, None] * shape[1] * shape[2]
    sizes = np.bincount(number.reshape(-1))
    means = np.bincount(number.reshape(-1), weights=scores.reshape(-1)) / sizes
    order = len(means) - 1 - np.argsort(means[::-1], kind="stable")
    fits = np.cumsum(sizes[order]) <= count_of(sparsity, scores.size)
    keep = np.ones(len(means), dtype=bool)
    keep[order[fits]] = False
    return keep[number]
