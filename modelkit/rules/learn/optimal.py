"""Optimal classification trees of depth three or less: the fewest errors that any tree of its size can make.

Dynamic programming over the depth (Demirovic et al. 2022): the best tree of depth two for some rows follows from
how many rows of each class any two comparisons share, which one matrix product counts for all pairs. Above it every
comparison is tried as the root, the most promising first; those whose lower bound is no better are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelkit.rules.learn.atoms import Atoms
from modelkit.rules.learn.problem import Problem
from modelkit.rules.learn.tree import Node, as_list, complements, leaf, listed, split
from modelkit.rules.model import RuleSet

_LEAVES = 4  # of a tree of depth two
Plan = tuple[int, "Plan | None", "Plan | None"] | None
"""Comparison, plan where it holds, plan where not; None for a leaf."""


@dataclass(frozen=True)
class _Best:
    """The best trees of depth two for some rows.

    Attributes:
        right: float64 [4]: target of the best class, summed over the rows, of the best tree of 1, 2, 3, 4 leaves.
        plans: The trees.
    """

    right: np.ndarray
    plans: tuple[Plan, ...]


def optimal_path(problem: Problem, atoms: Atoms, sizes: Sequence[int], most: int = 48) -> dict[int, RuleSet]:
    """Optimal trees of several numbers of leaves and depth three at most, as rule lists.

    Args:
        problem: The rows, classes as outcomes.
        atoms: The comparisons.
        sizes: Leaves at most; more than 8 cannot be used.
        most: Comparisons that are tried; those that part the classes best. Within them the tree is optimal.
    """
    if not len(atoms.literals):
        return {}
    tried = candidates(problem, atoms, most)
    best = _search(problem, atoms, tried)
    found = {}
    for size in sizes:
        plan = max(best[: min(size, len(best))], key=lambda pair: pair[0])[1]
        root = leaf(problem, np.ones(len(problem), bool))
        _apply(problem, atoms, root, plan)
        entries, default = as_list(root, atoms)
        if entries:
            found[size] = listed(problem, atoms, entries, default)
    return found


def candidates(problem: Problem, atoms: Atoms, most: int) -> np.ndarray:
    """Comparisons to try: one of each pair of opposites, spread over the columns, the best first."""
    other = complements(atoms)
    kept = [i for i in range(len(atoms.literals)) if other.get(i, i) >= i]
    bits = atoms.bits[:, kept].astype(np.float64)
    yes, count = bits.T @ problem.target, bits.sum(axis=0)[:, None]
    gain = (yes**2 / count).sum(1) + ((problem.target.sum(0) - yes) ** 2 / (len(problem) - count)).sum(1)
    chosen: list[int] = []
    rank: dict[int, int] = {}
    order = np.argsort(-gain, kind="stable")
    # The second and third best threshold of a column say nearly what the best says.
    nth = {}
    for i in order:
        column = int(atoms.column[kept[i]])
        rank[column] = rank.get(column, 0) + 1
        nth[i] = rank[column]
    for i in sorted(order, key=lambda i: (-(gain[i] - gain.min()) / (1 + 0.25 * nth[i]), i)):
        chosen.append(kept[i])
    return np.array(chosen[:most], np.int64)


def _search(problem: Problem, atoms: Atoms, tried: np.ndarray) -> list[tuple[float, Plan]]:
    """The best tree of exactly 1, 2, ..., 8 leaves: what it gets right, and its plan."""
    bits = atoms.bits[:, tried]
    target = problem.target
    everything = np.ones(len(target), bool)
    whole = _depth_two(bits, target, everything)
    best: list[tuple[float, Plan]] = [(float(whole.right[i]), whole.plans[i]) for i in range(_LEAVES)]
    best += [(-np.inf, None)] * _LEAVES
    one_split = [_one_split(bits, target, rows) for rows in bits.T]
    for atom in np.argsort(-np.array(one_split), kind="stable"):
        yes, no = bits[:, atom], ~bits[:, atom]
        sides = _depth_two(bits, target, yes), _depth_two(bits, target, no)
        for i in range(_LEAVES):
            for j in range(_LEAVES):
                right = sides[0].right[i] + sides[1].right[j]
                if right > best[i + j + 1][0] + 1e-9:
                    best[i + j + 1] = float(right), (int(atom), sides[0].plans[i], sides[1].plans[j])
        if best[-1][0] >= target.max(axis=1).sum() - 1e-9:
            break  # nothing is left to be got right
    return [(right, _named(plan, tried)) for right, plan in best]


def _named(plan: Plan, tried: np.ndarray) -> Plan:
    return None if plan is None else (int(tried[plan[0]]), _named(plan[1], tried), _named(plan[2], tried))


def _one_split(bits: np.ndarray, target: np.ndarray, rows: np.ndarray) -> float:
    """What a split gets right with one more split on each side: which roots are promising."""
    total = 0.0
    for side in (rows, ~rows):
        yes = bits[side].T.astype(np.float32) @ target[side].astype(np.float32)
        both = yes.max(axis=1) + (target[side].sum(axis=0) - yes).max(axis=1)
        total += float(both.max())
    return total


def _depth_two(bits: np.ndarray, target: np.ndarray, rows: np.ndarray) -> _Best:
    inside = bits[rows].astype(np.float32)
    aim = target[rows].astype(np.float32)
    count = inside.shape[1]
    whole = aim.sum(axis=0)
    # pairs[k, a, b]: target of class k in rows where both a and b hold.
    pairs = np.stack([inside.T @ (inside * aim[:, k : k + 1]) for k in range(aim.shape[1])])
    single = pairs[:, np.arange(count), np.arange(count)]
    yes_leaf, no_leaf = single.max(axis=0), (whole[:, None] - single).max(axis=0)
    yes = pairs.max(axis=0) + (single[:, :, None] - pairs).max(axis=0)
    rest = single[:, None, :] - pairs
    no = rest.max(axis=0) + (whole[:, None, None] - single[:, :, None] - rest).max(axis=0)
    best_yes, best_no = yes.argmax(axis=1), no.argmax(axis=1)
    yes_split, no_split = yes.max(axis=1), no.max(axis=1)
    two, four = yes_leaf + no_leaf, yes_split + no_split
    three = np.maximum(yes_split + no_leaf, yes_leaf + no_split)
    a2, a3, a4 = int(two.argmax()), int(three.argmax()), int(four.argmax())
    left = yes_split[a3] + no_leaf[a3] >= yes_leaf[a3] + no_split[a3]
    plan3: Plan = (a3, (int(best_yes[a3]), None, None), None) if left else (a3, None, (int(best_no[a3]), None, None))
    plan4: Plan = (a4, (int(best_yes[a4]), None, None), (int(best_no[a4]), None, None))
    right = np.array([whole.max(), two[a2], three[a3], four[a4]], np.float64)
    return _Best(right, (None, (a2, None, None), plan3, plan4))


def _apply(problem: Problem, atoms: Atoms, node: Node, plan: Plan) -> None:
    if plan is None:
        return
    split(problem, atoms, node, plan[0])
    assert node.yes is not None and node.no is not None
    _apply(problem, atoms, node.yes, plan[1])
    _apply(problem, atoms, node.no, plan[2])
