"""Beam search for the conjunction of comparisons that scores best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelkit.rules.learn.atoms import Atoms

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Sums of the statistics within boxes [B, M] and numbers of rows [B] -> how good each box is [B]."""


@dataclass(frozen=True)
class Box:
    """A conjunction.

    Attributes:
        atoms: Indices of its comparisons, ascending.
        score: How good it is, the price of its length taken off.
    """

    atoms: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Beam:
    """How to search.

    Attributes:
        width: Conjunctions that are carried on.
        depth: Comparisons in one at most.
        price: What a comparison costs.
        least: Rows that a box must hold.
    """

    width: int = 6
    depth: int = 3
    price: float = 0.0
    least: int = 2


def best_boxes(
    atoms: Atoms, stats: np.ndarray, score: Score, beam: Beam, allowed: np.ndarray | None = None
) -> list[Box]:
    """Find the best conjunctions, best first.

    Args:
        atoms: The comparisons.
        stats: float [N, M]: statistics whose sums over a box make its score.
        score: The score of boxes, larger is better.
        beam: How to search.
        allowed: bool [N]: rows that count towards `Beam.least`; all without.

    Returns:
        At most ``width * depth`` boxes, each scored; empty where no box holds enough rows.
    """
    columns = np.column_stack([stats, np.ones(len(stats)) if allowed is None else allowed]).astype(np.float32)
    frontier: list[tuple[int, ...]] = [()]
    found: dict[tuple[int, ...], float] = {}
    for depth in range(beam.depth):
        scored = _extensions(atoms, columns, score, beam, frontier, beam.price * (depth + 1))
        frontier = []
        for value, parent, atom in scored:
            box = tuple(sorted({*parent, atom}))
            if box in found:
                continue
            found[box] = value
            frontier.append(box)
            if len(frontier) >= beam.width:
                break
        if not frontier:
            break
    ranked = sorted(found.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
    return [Box(box, value) for box, value in ranked]


def _extensions(
    atoms: Atoms, columns: np.ndarray, score: Score, beam: Beam, frontier: list[tuple[int, ...]], price: float
) -> list[tuple[float, tuple[int, ...], int]]:
    """The best boxes of one more comparison: score, box without it, comparison; best first."""
    width = columns.shape[1]
    parts = [columns if not box else columns * atoms.box(box)[:, None] for box in frontier]
    sums = atoms.transposed @ np.hstack(parts)
    found: list[tuple[float, tuple[int, ...], int]] = []
    for i, box in enumerate(frontier):
        block = sums[:, i * width : (i + 1) * width]
        rows = block[:, -1]
        values = np.where(rows >= beam.least, score(block[:, :-1], rows), -np.inf) - price
        whole = parts[i][:, -1].sum()
        values[rows >= whole] = -np.inf  # changes nothing
        best = np.argsort(-values, kind="stable")[: 4 * beam.width]
        found += [(float(values[atom]), box, int(atom)) for atom in best if np.isfinite(values[atom])]
    return sorted(found, key=lambda item: (-item[0], item[1], item[2]))
