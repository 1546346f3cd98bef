"""Conditions as unions of boxes: a cube says for each axis that matters in which of its cells it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelkit.rules.axes import Axis, CategoryAxis, Key, LinearAxis, NumberAxis
from modelkit.rules.conditions import And, Condition, Linear, Not, Or

MAX_CUBES = 2048
"""Cubes that one condition may need; beyond it is too complex to be taken apart."""


class TooComplexError(Exception):
    """A condition needs more than `MAX_CUBES` cubes."""


Cube = Mapping[Key, int]
"""Axis -> cells as bits; axes that do not matter are left out. No entry is empty or the whole domain."""


@dataclass
class CubeMaker:
    """Takes conditions apart into cubes.

    Args:
        axes: All axes that conditions need.
    """

    axes: Mapping[Key, Axis]
    _cache: dict[Condition, int] = field(default_factory=dict)

    def cubes(self, condition: Condition) -> list[Cube]:
        """Cubes whose union is where the condition holds; none where it never does.

        Raises:
            TooComplexError: There would be too many.
        """
        return self._make(condition, True)

    def _make(self, condition: Condition, positive: bool) -> list[Cube]:
        if isinstance(condition, Not):
            return self._make(condition.term, not positive)
        if isinstance(condition, And | Or):
            parts = (self._make(term, positive) for term in condition.terms)
            join = isinstance(condition, And) == positive
            found: list[Cube] = [{}] if join else []
            for part in parts:
                found = self._meet(found, part) if join else self._united([*found, *part])
                if len(found) > MAX_CUBES:
                    raise TooComplexError
                if join and not found:
                    break
            return found
        key: Key = condition if isinstance(condition, Linear) else condition.column
        axis = self.axes[key]
        if condition not in self._cache:
            self._cache[condition] = 2 if isinstance(axis, LinearAxis) else _cells(axis, condition)
        cells = self._cache[condition]
        cells = (cells if positive else ~cells) & axis.domain
        if cells == axis.domain:
            return [{}]
        return [{key: cells}] if cells else []

    def _meet(self, left: list[Cube], right: list[Cube]) -> list[Cube]:
        found = []
        for a in left:
            for b in right:
                cube = intersection(a, b)
                if cube is not None:
                    found.append(cube)
            if len(found) > 4 * MAX_CUBES:
                raise TooComplexError
        return self._united(found)

    def _united(self, cubes: list[Cube]) -> list[Cube]:
        """The same union with fewer cubes: those over one axis alone are merged, repeated ones dropped."""
        if len(cubes) < 2:
            return cubes
        single: dict[Key, int] = {}
        others: dict[frozenset[tuple[Key, int]], Cube] = {}
        for cube in cubes:
            if not cube:
                return [cube]
            if len(cube) == 1:
                key, cells = next(iter(cube.items()))
                single[key] = single.get(key, 0) | cells
                if single[key] == self.axes[key].domain:
                    return [{}]
            else:
                others.setdefault(frozenset(cube.items()), cube)
        kept = [cube for cube in others.values() if not any(cube.get(k, ~s) & ~s == 0 for k, s in single.items())]
        return [*({key: cells} for key, cells in single.items()), *kept]


def _cells(axis: NumberAxis | CategoryAxis, atom: Condition) -> int:
    assert not isinstance(atom, And | Or | Not | Linear)
    return axis.cells(atom)


def intersection(left: Cube, right: Cube) -> Cube | None:
    """Where both are; None where nowhere."""
    if len(right) > len(left):
        left, right = right, left
    found = dict(left)
    for key, cells in right.items():
        both = found.get(key, cells) & cells
        if not both:
            return None
        found[key] = both
    return found
