"""Greedy cover: rules that are each right on a minimum share of their rows, the one that takes most rows first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelkit.rules.learn.atoms import Atoms
from modelkit.rules.learn.beam import Beam, best_boxes
from modelkit.rules.learn.problem import Problem
from modelkit.rules.learn.tree import Entry, listed
from modelkit.rules.model import RuleSet

_STEEP = 20.0  # how much a row that is missing to the precision counts against one that is right


@dataclass(frozen=True)
class CoverSettings:
    """How a cover is searched.

    Attributes:
        beam: How boxes are searched; its price is in rows.
        precision: Share of the rows that a rule takes on which it must be right.
    """

    beam: Beam
    precision: float = 0.95


def cover_path(problem: Problem, atoms: Atoms, sizes: Sequence[int], settings: CoverSettings) -> dict[int, RuleSet]:
    """Rule lists of several sizes, the default counted as a rule; it is for the rows that no precise rule takes.

    Args:
        problem: The rows, classes as outcomes.
        atoms: The comparisons.
        sizes: Numbers of rules at most, ascending.
        settings: How.
    """
    target = problem.target
    free = np.ones(len(problem), bool)
    entries: list[Entry] = []

    def score(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        right = sums.max(axis=1)
        found: np.ndarray = right - _STEEP * np.maximum(0.0, settings.precision * rows - right)
        return found

    found = {}
    for size in sizes:
        while len(entries) < size - 1 and free.any():
            boxes = best_boxes(atoms, target * free[:, None], score, settings.beam, free)
            chosen = next((box for box in boxes if _precise(atoms.box(box.atoms) & free, target, settings)), None)
            if chosen is None:
                break
            inside = atoms.box(chosen.atoms) & free
            entries.append((chosen.atoms, int(target[inside].sum(axis=0).argmax())))
            free = free & ~inside
        if entries:
            rest = target[free if free.any() else slice(None)].sum(axis=0)
            found[size] = listed(problem, atoms, entries, int(rest.argmax()))
    return found


def _precise(inside: np.ndarray, target: np.ndarray, settings: CoverSettings) -> bool:
    count = int(inside.sum())
    return count >= settings.beam.least and target[inside].sum(axis=0).max() >= settings.precision * count
