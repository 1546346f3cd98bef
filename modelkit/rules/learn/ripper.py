"""Ordered RIPPER for any number of classes (Cohen 1995), over a table of comparisons.

Classes are taken from the rarest to the most frequent, which is the default. For each, rules are grown by FOIL's
information gain on two thirds of the rows and pruned on the rest (IREP*), until the description length is 64 bits
above the shortest; two passes then hold each rule against a replacement and a revision, and keep what describes the
rows in the fewest bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelkit.rules.learn.atoms import Atoms
from modelkit.rules.learn.lists import Entry, ListSearch, ListSettings
from modelkit.rules.learn.problem import Problem
from modelkit.rules.model import RuleSet

_BITS = 64.0
_PASSES = 2
_MOST = 40  # rules of one class
_LONGEST = 8  # comparisons of one rule
Box = tuple[int, ...]


def ripper_path(problem: Problem, atoms: Atoms, sizes: Sequence[int], seed: int) -> dict[int, RuleSet]:
    """Rule lists of several sizes: RIPPER's, less the rules whose loss costs least.

    Args:
        problem: The rows, classes as outcomes.
        atoms: The comparisons.
        sizes: Numbers of rules at most, the default counted, ascending.
        seed: Seed of the split into growing and pruning rows.
    """
    rng = np.random.default_rng(seed)
    labels = problem.target.argmax(axis=1)
    order = np.argsort(np.bincount(labels, minlength=len(problem.classes)), kind="stable")
    left = np.ones(len(labels), bool)
    entries: list[Entry] = []
    for class_ in order[:-1]:
        if not (labels[left] == class_).any():
            continue
        learner = _OneClass(atoms.bits, labels == class_, left, rng)
        boxes = learner.learn()
        entries += [(box, int(class_)) for box in boxes]
        left &= ~learner.covered(boxes)
    search = ListSearch(problem, atoms, ListSettings())
    default, found = int(order[-1]), {}
    for size in reversed(list(sizes)):
        while len(entries) >= size:
            rest = [[*entries[:i], *entries[i + 1 :]] for i in range(len(entries))]
            entries = max(rest, key=lambda kept: search.value(kept, default))
        if entries:
            found[size] = search.rules(entries, default)
    return dict(sorted(found.items()))


class _OneClass:
    """Rules for one class against the rows that are left."""

    def __init__(self, bits: np.ndarray, positive: np.ndarray, left: np.ndarray, rng: np.random.Generator) -> None:
        self._bits, self._positive, self._left, self._rng = bits, positive, left, rng

    def covered(self, boxes: Sequence[Box]) -> np.ndarray:
        found = np.zeros(len(self._positive), bool)
        for box in boxes:
            found |= self._bits[:, list(box)].all(axis=1)
        return found

    def learn(self) -> list[Box]:
        boxes = self._add([], self._left)
        for _ in range(_PASSES):
            boxes = self._optimise(boxes)
            boxes = self._add(boxes, self._left & ~self.covered(boxes))
        return self._without_waste(boxes)

    def _add(self, boxes: list[Box], rows: np.ndarray) -> list[Box]:
        """Add rules for rows that none covers, until the description gets long."""
        boxes, shortest = list(boxes), self._length(boxes)
        while (rows & self._positive).any() and len(boxes) < _MOST:
            growing, pruning = self._halves(rows)
            box = self._pruned(self._grown((), growing), [], pruning)
            inside = self.covered([box]) & pruning
            if not box or (inside.any() and (self._positive & inside).sum() * 2 < inside.sum()):
                break
            if not (self.covered([box]) & rows & self._positive).any():
                break
            boxes.append(box)
            length = self._length(boxes)
            if length > shortest + _BITS:
                break
            shortest = min(shortest, length)
            rows = rows & ~self.covered([box])
        return self._without_waste(boxes)

    def _optimise(self, boxes: list[Box]) -> list[Box]:
        for i in range(len(boxes)):
            others = [*boxes[:i], *boxes[i + 1 :]]
            growing, pruning = self._halves(self._left)
            free = growing & ~self.covered(others)
            options = [boxes[i]]
            options += [self._pruned(self._grown(start, free), others, pruning) for start in ((), boxes[i])]
            best = min((o for o in options if o), key=lambda o: self._length([*boxes[:i], o, *boxes[i + 1 :]]))
            boxes = [*boxes[:i], best, *boxes[i + 1 :]]
        return boxes

    def _without_waste(self, boxes: list[Box]) -> list[Box]:
        """Drop rules that make the description longer, the last first."""
        for i in reversed(range(len(boxes))):
            rest = [*boxes[:i], *boxes[i + 1 :]]
            if self._length(rest) < self._length(boxes):
                boxes = rest
        return boxes

    def _halves(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two thirds of the rows to grow on, one to prune on, in each the same share of the class."""
        growing = np.zeros(len(rows), bool)
        for kind in (rows & self._positive, rows & ~self._positive):
            chosen = self._rng.permutation(np.flatnonzero(kind))
            growing[chosen[: -(-2 * len(chosen) // 3)]] = True
        return growing, rows & ~growing

    def _grown(self, start: Box, rows: np.ndarray) -> Box:
        """Add the comparison of the largest FOIL gain until no other class is inside."""
        box = start
        inside = rows & self.covered([box])
        while len(box) < _LONGEST and (inside & ~self._positive).any() and (inside & self._positive).any():
            bits = self._bits[inside]
            positive = self._positive[inside].astype(np.float64)
            p, n = positive @ bits, (1 - positive) @ bits
            now = np.log2((positive.sum() + 1) / (len(positive) + 1))
            gain = p * (np.log2((p + 1) / (p + n + 1)) - now)
            best = int(gain.argmax())
            if gain[best] <= 1e-9 or best in box:
                break
            box, inside = (*box, best), inside & self._bits[:, best]
        return box

    def _pruned(self, box: Box, others: Sequence[Box], rows: np.ndarray) -> Box:
        """The start of a rule that is best on the pruning rows: by (p - n) / (p + n) of the rule."""
        best, chosen = -np.inf, box
        free = rows & ~self.covered(others)
        for end in range(len(box), 0, -1):
            inside = free & self.covered([box[:end]])
            p = (inside & self._positive).sum()
            value = (2 * p - inside.sum()) / max(1, inside.sum())
            if value >= best:
                best, chosen = value, box[:end]
        return chosen

    def _length(self, boxes: Sequence[Box]) -> float:
        """Bits to write the rules and their exceptions (Quinlan 1995)."""
        inside = self.covered(boxes) & self._left
        total, covered = int(self._left.sum()), int(inside.sum())
        wrong_in = int((inside & ~self._positive).sum())
        wrong_out = int((self._left & ~inside & self._positive).sum())
        expected = max(1, wrong_in + wrong_out)
        bits = np.log2(total + 1)
        bits += _subset(covered, wrong_in, min(1.0, expected / 2 / max(covered, 1)))
        bits += _subset(total - covered, wrong_out, min(1.0, expected / 2 / max(total - covered, 1)))
        count = self._bits.shape[1]
        rules = sum(
            0.5 * (_subset(count, len(box), len(box) / count) + np.log2(len(box)) + 1) for box in boxes if box
        )
        return float(bits + rules)


def _subset(total: int, chosen: int, share: float) -> float:
    """Bits to say which of ``total`` things are chosen when a share of them is expected."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    return float(-chosen * np.log2(share) - (total - chosen) * np.log2(1 - share))
