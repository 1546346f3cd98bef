"""Which rules fire, as bits: each axis's cell looks up the rules that it allows, and AND joins the axes.

This is the bit vector method of packet classification (Lakshman and Stiliadis, SIGCOMM 1998). A rule's condition is
a union of boxes; the first box of each rule makes up plane 0, the second ones plane 1, and planes are joined by OR.
Rules are laid out `BITS` to a word of int64; words are done `GROUP` at a time, with a table of their own for each
axis, since tables grow with the square of the rules in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from modelkit.rules.axes import Axis, Key, make_axes
from modelkit.rules.boxes import runs
from modelkit.rules.conditions import ALWAYS, Condition, Linear, atoms
from modelkit.rules.cubes import Cube, CubeMaker, TooComplexError
from modelkit.rules.model import RuleSet
from modelkit.rules.onnx_input import Inputs
from modelkit.rules.onnx_nodes import Nodes

BITS = 62
GROUP = 16
_MOST_PLANES = 8


def exact_axes(rules: RuleSet) -> dict[Key, Axis]:
    """Axes over all values that can be fed, declared or not."""
    return make_axes(rules.columns, (atom for rule in rules.rules for atom in atoms(rule.when)), exact=True)


class Matcher:
    """Makes the bits of the rules that fire.

    Args:
        rules: The rule set.
        axes: Its exact axes.
        inputs: The graph's input side.
        nodes: The graph.
    """

    def __init__(self, rules: RuleSet, axes: Mapping[Key, Axis], inputs: Inputs, nodes: Nodes) -> None:
        self._rules, self._axes, self._inputs, self._nodes = rules, axes, inputs, nodes

    def words(self, order: Sequence[int | None]) -> str:
        """Bits of rules: int64 [N, words]; bit b of word w is the rule ``order[w * BITS + b]``; None fires always."""
        maker = CubeMaker(self._axes)
        planes: list[dict[int, Cube]] = [{}]
        for position, index in enumerate(order):
            condition = ALWAYS if index is None else self._rules.rules[index].when
            for number, cube in enumerate(_cubes(maker, condition)):
                if number == len(planes):
                    planes.append({})
                planes[number][position] = cube
        self._prepare(cube for plane in planes for cube in plane.values())
        count = -(-len(order) // BITS)
        total = ""
        for plane in planes:
            bits = self._plane(plane, count)
            total = self._nodes.add("BitwiseOr", total, bits) if total else bits
        return total

    def _prepare(self, cubes: Iterable[Cube]) -> None:
        keys = {key: None for cube in cubes for key in cube}
        looked: set[Key] = {key for key in keys if isinstance(key, str)}
        linear = [key for key in keys if isinstance(key, Linear)]
        for key in keys:
            if not isinstance(key, str | Linear):  # a condition that is computed by operators
                found = list(atoms(key))
                linear += [atom for atom in found if isinstance(atom, Linear)]
                looked |= {atom.column for atom in found if not isinstance(atom, Linear)}
        self._inputs.locate([name for name in self._axes if isinstance(name, str) and name in looked])
        self._inputs.linear(linear)

    def _plane(self, plane: dict[int, Cube], count: int) -> str:
        """One box of each rule: int64 [N, count]."""
        nodes = self._nodes
        used = sorted({position // BITS for position in plane})
        if not used:
            return self._constant(np.zeros((1, count), np.int64))
        parts = []
        for start in range(0, len(used), GROUP):
            words = used[start : start + GROUP]
            where = {word: i for i, word in enumerate(words)}
            group = {where[p // BITS] * BITS + p % BITS: cube for p, cube in plane.items() if p // BITS in where}
            parts.append(self._group(group, len(words)))
        found = nodes.join(parts)
        if len(used) == count:
            return found
        spread = np.full(count, len(used))
        spread[used] = np.arange(len(used))
        padded = nodes.join([found, self._constant(np.zeros((1, 1), np.int64))])
        return nodes.columns(padded, spread)

    def _constant(self, row: np.ndarray) -> str:
        """The same row for all rows of the input."""
        shape = self._nodes.add(
            "Concat", self._inputs.count(), self._nodes.constant([row.shape[1]], np.int64), axis=0
        )
        return self._nodes.add("Expand", self._nodes.constant(row), shape)

    def _group(self, group: dict[int, Cube], words: int) -> str:
        """Bits of up to GROUP words: for each axis a look-up, all joined by AND."""
        nodes = self._nodes
        keys = list({key: None for cube in group.values() for key in cube})
        if not keys:
            bits = np.zeros((1, words * BITS), bool)
            bits[0, list(group)] = True
            return self._constant(_packed(bits))
        total = ""
        for key in keys:
            size = self._axes[key].size if key in self._axes else 2
            sets = {bit: cube[key] for bit, cube in group.items() if key in cube}
            table, cells = _table(sets, list(group), size, words * BITS)
            index = self._inputs.cells(key) if isinstance(key, str) else nodes.cast(self._inputs.holds(key), "INT64")
            if len(table) < size:
                index = nodes.pick(cells.astype(np.int32), index)
            found = nodes.pick(_packed(table), index)
            total = nodes.add("BitwiseAnd", total, found) if total else found
        return total


def _cubes(maker: CubeMaker, condition: Condition) -> list[Cube]:
    """A condition's boxes; itself as an axis of its own where there are too many."""
    try:
        cubes = maker.cubes(condition)
    except TooComplexError:
        return [{condition: 2}]
    return [{condition: 2}] if len(cubes) > _MOST_PLANES else cubes


def _table(sets: Mapping[int, int], present: list[int], size: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """For each piece of an axis the bits that it allows: bool [pieces, bits]; and the piece of each cell [size].

    Neighbouring cells that allow the same bits are one piece.
    """
    spans = [(bit, first, last) for bit, cells in sets.items() for first, last in runs(cells)]
    starts = sorted({0, *(first for _, first, _ in spans), *(last + 1 for _, _, last in spans if last + 1 < size)})
    change = np.zeros((len(starts) + 1, bits), np.int8)
    where = {cell: i for i, cell in enumerate(starts)}
    where[size] = len(starts)
    for bit, first, last in spans:
        change[where[first], bit] += 1
        change[where[last + 1], bit] -= 1
    free = [bit for bit in present if bit not in sets]
    change[0, free] += 1
    table = np.cumsum(change[:-1], axis=0, dtype=np.int8) > 0
    cells = np.searchsorted(np.array(starts), np.arange(size), side="right") - 1
    return table, cells


def _packed(table: np.ndarray) -> np.ndarray:
    """Bits as words: bool [P, W * BITS] becomes int64 [P, W]."""
    wide = np.zeros((len(table), table.shape[1] // BITS, 64), bool)
    wide[:, :, :BITS] = table.reshape(len(table), -1, BITS)
    packed: np.ndarray = np.packbits(wide, axis=2, bitorder="little").view("<i8")[:, :, 0].astype(np.int64)
    return packed
