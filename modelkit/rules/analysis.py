"""What every check of a rule set needs: its axes, its rules as boxes, and rows of regions; prepared once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modelkit.rules.axes import make_axes
from modelkit.rules.boxes import Boxes, Region, Space
from modelkit.rules.budget import Budget
from modelkit.rules.conditions import Condition
from modelkit.rules.cubes import Cube, CubeMaker, TooComplexError
from modelkit.rules.model import Bound, Forbid, Monotone, Require, RuleSet
from modelkit.rules.samples import all_atoms
from modelkit.rules.solver import Found, RowMaker

_MOST_BOXES = 200_000


@dataclass
class Analysis:
    """A rule set taken apart, over what its columns declare.

    Attributes:
        rules: The rule set.
        budget: How long all of it may take.
        space: The axes that rules and claims restrict.
        boxes: Boxes of all rules, in the order in which the policy asks the rules.
        rows: Finds rows in regions.
        dead: Indices of rules whose condition never holds.
        complex: Indices of rules that are too complex to be taken apart, by themselves or all together; they have no
            boxes.
        unsure: Indices of rules of which it is not known whether they can fire.
        when: For each claim the regions in which it must hold; None where that is too complex.
    """

    rules: RuleSet
    budget: Budget
    space: Space = field(init=False)
    boxes: Boxes = field(init=False)
    rows: RowMaker = field(init=False)
    dead: list[int] = field(init=False, default_factory=list)
    complex: list[int] = field(init=False, default_factory=list)
    unsure: list[int] = field(init=False, default_factory=list)
    when: list[list[Region] | None] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        rules = self.rules
        maker = CubeMaker(make_axes(rules.columns, all_atoms(rules), exact=False))
        cubes: list[tuple[int, Cube]] = []
        for index in rules.order:
            found = _cubes(maker, rules.rules[index].when)
            if found is None or self.budget.is_spent or len(cubes) + len(found) > _MOST_BOXES:
                self.complex.append(index)
            else:
                cubes += [(index, cube) for cube in found]
                if not found:
                    self.dead.append(index)
        claims: list[list[Cube] | None] = [
            _cubes(maker, claim.when) if isinstance(claim, Forbid | Require | Bound) else [{}]
            for claim in rules.claims
        ]
        every = [cube for _, cube in cubes] + [cube for found in claims for cube in found or ()]
        kept: list[Cube] = [{claim.column: 0} for claim in rules.claims if isinstance(claim, Monotone)]
        self.space = Space.of(maker.axes, [*every, *kept])
        self.boxes, awkward = _boxes(self.space, cubes)
        self.complex += awkward
        self.rows = RowMaker(rules, self.space, self.budget)
        self.when = [_regions(self.space, found) for found in claims]
        self._drop_empty()

    def _drop_empty(self) -> None:
        """Leave out boxes that linear conditions make empty, and find rules that are dead by that."""
        linear = [i for i, key in enumerate(self.space.spans) if not isinstance(key, str)]
        if not linear:
            return
        keep = np.ones(len(self.boxes), bool)
        bound = (self.boxes.low[:, linear] == self.boxes.high[:, linear]).any(axis=1)
        alive: set[int] = set(self.boxes.owner[~bound].tolist())
        doubted: set[int] = set()
        for i in np.flatnonzero(bound):
            answer = self.rows.row(self.boxes.region(int(i)))
            keep[i] = answer.found is not Found.EMPTY
            (alive if answer.found is Found.ROW else doubted).add(int(self.boxes.owner[i]))
            if answer.found is Found.EMPTY:
                doubted.discard(int(self.boxes.owner[i]))
        owners = set(self.boxes.owner.tolist())
        self.boxes = self.boxes.take(keep)
        left = set(self.boxes.owner.tolist())
        self.dead += sorted(owners - left)
        self.unsure = sorted((left & doubted) - alive)

    def first(self, owners: Sequence[int]) -> list[str]:
        """Names of rules."""
        return [self.rules.rules[owner].name for owner in owners]


def _cubes(maker: CubeMaker, condition: Condition) -> list[Cube] | None:
    try:
        return maker.cubes(condition)
    except TooComplexError:
        return None


def _boxes(space: Space, cubes: list[tuple[int, Cube]]) -> tuple[Boxes, list[int]]:
    """Boxes of all cubes, and the owners of those that need too many."""
    try:
        return space.boxes(cubes), []
    except TooComplexError:
        awkward = []
        for index in dict.fromkeys(owner for owner, _ in cubes):
            try:
                space.boxes([pair for pair in cubes if pair[0] == index])
            except TooComplexError:
                awkward.append(index)
        return space.boxes([pair for pair in cubes if pair[0] not in set(awkward)]), awkward


def _regions(space: Space, cubes: list[Cube] | None) -> list[Region] | None:
    if cubes is None:
        return None
    try:
        boxes = space.boxes([(0, cube) for cube in cubes])
    except TooComplexError:
        return None
    return [boxes.region(i) for i in range(len(boxes))]
