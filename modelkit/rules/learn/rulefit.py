"""RuleFit: a pool of rules from small trees, a sparse selection by the L1 path, then the best weights.

Friedman & Popescu 2008. The pool comes from trees on random halves of the rows and of the comparisons; the path is
followed by proximal gradient steps (FISTA, Beck & Teboulle 2009) from the largest penalty down. The rules that are
in at a size start the local search of `modelkit.rules.learn.additive`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelkit.rules.learn.additive import AdditiveFit, AdditiveSettings, Ensemble, softmax
from modelkit.rules.learn.atoms import Atoms
from modelkit.rules.learn.problem import Problem
from modelkit.rules.learn.tree import Node, complements, grow
from modelkit.rules.model import RuleSet

_TREES = 24
_LEAVES = 6
_STEPS = 40  # of the path, and gradient steps at each
Box = tuple[int, ...]


def rulefit_path(
    problem: Problem, atoms: Atoms, sizes: Sequence[int], settings: AdditiveSettings, seed: int
) -> dict[int, RuleSet]:
    """Additive rule sets of several sizes.

    Args:
        problem: The rows; numbers of variance 1.
        atoms: The comparisons.
        sizes: Numbers of rules.
        settings: How the weights are fitted and rules exchanged.
        seed: Seed of the trees.
    """
    pool = rule_pool(problem, atoms, settings.beam.depth, seed)
    if not pool:
        return {}
    chosen = l1_path(problem, np.column_stack([atoms.box(box) for box in pool]), max(sizes))
    fit = AdditiveFit(problem, atoms, settings)
    found = {}
    for size in sizes:
        inside = [terms for terms in chosen if len(terms) <= size]
        terms = max(inside, key=len) if inside else []
        if not terms:
            continue
        boxes, classes = tuple(pool[i] for i, _ in terms), tuple(k for _, k in terms)
        start = Ensemble(boxes, classes, np.zeros(len(terms)), np.zeros(problem.target.shape[1]), np.inf)
        ensemble = fit.refit(start)
        while len(ensemble.boxes) < size:
            more = fit.grow(ensemble)
            if more is None:
                break
            ensemble = more
        found[size] = fit.rules(fit.improve(ensemble, 1))
    return found


def rule_pool(problem: Problem, atoms: Atoms, depth: int, seed: int) -> list[Box]:
    """All nodes of trees on random halves of rows and comparisons, each box once."""
    rng = np.random.default_rng(seed)
    opposite = complements(atoms)
    bits: dict[bytes, Box] = {}
    for _ in range(_TREES):
        rows = rng.permutation(len(problem))[: max(20, len(problem) // 2)]
        some = np.sort(rng.permutation(len(atoms.literals))[: max(8, len(atoms.literals) // 2)])
        part = Atoms(tuple(atoms.literals[i] for i in some), atoms.column[some], atoms.bits[np.ix_(rows, some)])
        root = grow(problem.rows(rows), part, _LEAVES, max(2, len(rows) // 50))
        for path in _nodes(root, some, opposite, ()):
            box = tuple(sorted(set(path)))
            if box and len(box) <= depth:
                key = np.packbits(atoms.box(box)).tobytes()
                if key not in bits or len(box) < len(bits[key]):
                    bits[key] = box
    return list(bits.values())


def _nodes(node: Node, some: np.ndarray, opposite: dict[int, int], path: Box) -> list[Box]:
    found = [path]
    if node.atom is None or node.yes is None or node.no is None:
        return found
    atom = int(some[node.atom])
    found += _nodes(node.yes, some, opposite, (*path, atom))
    if atom in opposite:
        found += _nodes(node.no, some, opposite, (*path, opposite[atom]))
    return found


def l1_path(problem: Problem, fired: np.ndarray, most: int) -> list[list[tuple[int, int]]]:
    """Which rules, for which class, have a weight as the penalty falls.

    Args:
        problem: The rows.
        fired: bool [N, P].
        most: The path ends where more than so many weights are not 0.

    Returns:
        For each step of the path the pairs of rule and class.
    """
    target = problem.target
    x = fired.astype(np.float64)
    mean = x.mean(axis=0)
    scale = np.sqrt(np.maximum(mean * (1 - mean), 1e-4))
    x = (x - mean) / scale
    rows, width = target.shape
    binary = len(problem.classes) == 2
    weights, base = np.zeros((x.shape[1], width)), np.zeros(width)

    def slopes(w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        now = x @ w + b
        rest = (softmax(now) if problem.classes else now) - target
        slope = x.T @ rest / rows
        if binary:  # one score is enough
            slope[:, 0] = 0.0
        return slope, rest.mean(axis=0)

    start = np.log(target.mean(axis=0) + 1e-9) if problem.classes else target.mean(axis=0)
    base = start - start.mean() if problem.classes else start
    top = float(np.abs(slopes(weights, base)[0]).max())
    step = 1.0 / max(float(np.linalg.norm(x, 2)) ** 2 / rows, 1e-9)
    found: list[list[tuple[int, int]]] = []
    for penalty in top * 0.87 ** np.arange(1, _STEPS):
        ahead, before, speed = weights.copy(), weights, 1.0
        for _ in range(_STEPS):
            slope, tilt = slopes(ahead, base)
            moved = ahead - step * slope
            weights = np.sign(moved) * np.maximum(np.abs(moved) - step * penalty, 0.0)
            base = base - tilt
            faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2
            ahead = weights + (speed - 1) / faster * (weights - before)
            before, speed = weights, faster
        terms = [(int(i), int(k)) for i, k in np.argwhere(np.abs(weights) > 1e-8)]
        if len(terms) > most:
            break
        found.append(terms)
    return found
