"""Binary trees over comparisons: grown greedily like CART, best leaf first, and written as short rule lists."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modelkit.rules.learn import compose
from modelkit.rules.learn.atoms import Atoms
from modelkit.rules.learn.problem import Problem
from modelkit.rules.model import RuleSet

Entry = tuple[tuple[int, ...], float]
"""Comparisons of a rule, and the index of its class or its number."""


@dataclass
class Node:
    """A leaf, or a split into rows where a comparison holds and rows where it does not.

    Attributes:
        value: Index of the best class, or the mean.
        rows: bool [N].
        atom: The comparison; None at a leaf.
        yes: Where it holds.
        no: Where it does not, missing values among them.
    """

    value: float
    rows: np.ndarray = field(repr=False)
    atom: int | None = None
    yes: Node | None = None
    no: Node | None = None

    def leaves(self) -> int:
        """Number of leaves."""
        return 1 if self.yes is None or self.no is None else self.yes.leaves() + self.no.leaves()


def leaf(problem: Problem, rows: np.ndarray) -> Node:
    """A leaf for some rows."""
    total = problem.target[rows].sum(axis=0)
    value = float(total[0] / max(1, rows.sum())) if problem.is_numeric else float(total.argmax())
    return Node(value, rows)


def complements(atoms: Atoms) -> dict[int, int]:
    """For a comparison the one that holds exactly where it does not, if there is one."""
    known = {np.packbits(atoms.bits[:, i]).tobytes(): i for i in range(len(atoms.literals))}
    found = {}
    for i in range(len(atoms.literals)):
        other = known.get(np.packbits(~atoms.bits[:, i]).tobytes())
        # The same rows are not enough: rows nobody has seen must fall on the same side, too.
        if other is not None and atoms.column[other] == atoms.column[i]:
            found[i] = other
    return found


def grow(problem: Problem, atoms: Atoms, leaves: int, least: int = 1) -> Node:
    """Split, again and again, the leaf where that lowers the impurity most.

    Gini impurity for classes, squared error for numbers (Breiman et al. 1984).

    Args:
        problem: The rows.
        atoms: The comparisons.
        leaves: How many leaves at most.
        least: Rows of a leaf at least.
    """
    root = leaf(problem, np.ones(len(problem), bool))
    queue: list[tuple[float, int, Node, int]] = []
    count = 0

    def offer(node: Node) -> None:
        nonlocal count
        gain, atom = _best_split(problem, atoms, node.rows, least)
        if gain > 1e-9:
            count += 1
            heapq.heappush(queue, (-gain, count, node, atom))

    offer(root)
    for _ in range(leaves - 1):
        if not queue:
            break
        _, _, node, atom = heapq.heappop(queue)
        split(problem, atoms, node, atom)
        assert node.yes is not None and node.no is not None
        offer(node.yes)
        offer(node.no)
    return root


def split(problem: Problem, atoms: Atoms, node: Node, atom: int) -> None:
    """Make two leaves of one."""
    inside = atoms.bits[:, atom]
    node.atom = atom
    node.yes, node.no = leaf(problem, node.rows & inside), leaf(problem, node.rows & ~inside)


def _best_split(problem: Problem, atoms: Atoms, rows: np.ndarray, least: int) -> tuple[float, int]:
    """By how much the best split of some rows lowers the impurity, and its comparison."""
    chosen = np.flatnonzero(rows)
    target = problem.target[chosen]
    stats = np.column_stack([target, np.ones(len(chosen))])
    sums = atoms.bits[chosen].T.astype(np.float64) @ stats
    yes, count = sums[:, :-1], sums[:, -1]
    whole = target.sum(axis=0)
    # Sum of squares over rows: Gini and squared error fall by the same expression.
    with np.errstate(all="ignore"):
        gain = (yes**2).sum(1) / count + ((whole - yes) ** 2).sum(1) / (len(chosen) - count)
    gain = np.where((count >= least) & (len(chosen) - count >= least), gain, -np.inf)
    gain -= (whole**2).sum() / len(chosen)
    best = int(gain.argmax()) if len(gain) else -1
    return (float(gain[best]), best) if best >= 0 else (-np.inf, -1)


def as_list(root: Node, atoms: Atoms) -> tuple[list[Entry], float]:
    """The tree as a list of which the first rule that holds decides: entries and default.

    A leaf only needs the comparisons that its path answers with yes: rows that answer yes where it says no have been
    taken by leaves further up the list. The side with fewer leaves comes first, where the comparison has an exact
    opposite. Neighbours of the same outcome are joined where one comparison less says the same.
    """
    opposite = complements(atoms)
    entries = _entries(root, opposite, ())
    default = entries.pop()[1]
    while entries and entries[-1][1] == default:
        entries.pop()
    return entries, default


def _entries(node: Node, opposite: dict[int, int], path: tuple[int, ...]) -> list[Entry]:
    if node.atom is None or node.yes is None or node.no is None:
        return [(path, node.value)]
    first, second, atom = node.yes, node.no, node.atom
    if first.leaves() > second.leaves() and atom in opposite:
        first, second, atom = second, first, opposite[atom]
    above, below = _entries(first, opposite, (*path, atom)), _entries(second, opposite, path)
    if len(above) == 1 and len(below) == 1 and above[0][1] == below[0][1]:
        return below
    return [*above, *below]


def tree_path(problem: Problem, atoms: Atoms, sizes: Sequence[int], least: int = 1) -> dict[int, RuleSet]:
    """Trees of several numbers of leaves, as rule lists.

    Args:
        problem: The rows.
        atoms: The comparisons.
        sizes: Leaves at most.
        least: Rows of a leaf at least.
    """
    found = {}
    for size in sizes:
        entries, default = as_list(grow(problem, atoms, size, least), atoms)
        if entries:
            found[size] = listed(problem, atoms, entries, default)
    return found


def listed(problem: Problem, atoms: Atoms, entries: Sequence[Entry], default: float) -> RuleSet:
    """Entries as a rule set."""
    boxes = [tuple(atoms.literals[i] for i in box) for box, _ in entries]
    return compose.first_match(problem, boxes, [value for _, value in entries], default, "rules")
