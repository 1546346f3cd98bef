"""Conditions as a small closed algebra of immutable values; what they mean is written in `modelkit.rules.evaluate`.

==================  =====================================================
`Compare`           column op value, op one of = != < <= > >=
`Between`           low <= column <= high
`In`                column in values, or not in them
`IsMissing`         column has no value
`Linear`            sum of coefficient * column, op, bound
`And`, `Or`, `Not`  of conditions; ``And(())`` is always true, ``Or(())`` never
==================  =====================================================
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelkit.rules.columns import Value

MAX_DEPTH = 60
"""How deep conditions may be nested; what walks over them may therefore recurse."""


class Operator(StrEnum):
    """A comparison."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="

    @property
    def function(self) -> Callable[[Any, Any], Any]:
        """The comparison as a function of two values or arrays."""
        return _FUNCTIONS[self]

    @property
    def flipped(self) -> Operator:
        """The operator with the sides exchanged: a < b is b > a."""
        return _FLIPPED.get(self, self)

    @property
    def needs_order(self) -> bool:
        """Whether it is about less and more."""
        return self not in (Operator.EQ, Operator.NE)


_FUNCTIONS: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
}
_FLIPPED = {
    Operator.LT: Operator.GT,
    Operator.LE: Operator.GE,
    Operator.GT: Operator.LT,
    Operator.GE: Operator.LE,
}


@dataclass(frozen=True)
class Compare:
    """Column op value: false where the value is missing, whatever the operator."""

    column: str
    op: Operator
    value: Value


@dataclass(frozen=True)
class Between:
    """low <= column <= high, both ends included; false where the value is missing."""

    column: str
    low: float
    high: float


@dataclass(frozen=True)
class In:
    """The column's value is one of these; with ``negated`` it is there and none of these."""

    column: str
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True)
class IsMissing:
    """The column has no value."""

    column: str


@dataclass(frozen=True)
class Linear:
    """c1 * x1 + c2 * x2 + ... op bound, summed from left to right in doubles; false where any x is missing.

    Attributes:
        terms: Column and coefficient, in the order of summation.
        op: The comparison.
        bound: What the sum is compared with.
    """

    terms: tuple[tuple[str, float], ...]
    op: Operator
    bound: float


@dataclass(frozen=True)
class And:
    """All of them hold.

    Raises:
        ValueError: Conditions are nested more than `MAX_DEPTH` deep (so do `Or` and `Not`).
    """

    terms: tuple[Condition, ...]
    depth: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        _set_depth(self, self.terms)


@dataclass(frozen=True)
class Or:
    """At least one of them holds."""

    terms: tuple[Condition, ...]
    depth: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        _set_depth(self, self.terms)


@dataclass(frozen=True)
class Not:
    """It does not hold."""

    term: Condition
    depth: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        _set_depth(self, (self.term,))


def _set_depth(condition: And | Or | Not, terms: tuple[Condition, ...]) -> None:
    depth = 1 + max((getattr(term, "depth", 0) for term in terms), default=0)
    if depth > MAX_DEPTH:
        raise ValueError(f"conditions are nested more than {MAX_DEPTH} deep")
    object.__setattr__(condition, "depth", depth)


Atom = Compare | Between | In | IsMissing | Linear
Condition = Atom | And | Or | Not

ALWAYS = And(())
NEVER = Or(())


def all_of(*terms: Condition) -> Condition:
    """The conjunction, nested ones taken apart; a single condition stays itself."""
    flat = tuple(inner for term in terms for inner in (term.terms if isinstance(term, And) else (term,)))
    return flat[0] if len(flat) == 1 else And(flat)


def any_of(*terms: Condition) -> Condition:
    """The disjunction, nested ones taken apart; a single condition stays itself."""
    flat = tuple(inner for term in terms for inner in (term.terms if isinstance(term, Or) else (term,)))
    return flat[0] if len(flat) == 1 else Or(flat)


def atoms(condition: Condition) -> Iterator[Atom]:
    """All comparisons in it, from left to right."""
    if isinstance(condition, And | Or):
        for term in condition.terms:
            yield from atoms(term)
    elif isinstance(condition, Not):
        yield from atoms(condition.term)
    else:
        yield condition


def columns_of(atom: Atom) -> tuple[str, ...]:
    """The columns that a comparison looks at."""
    return tuple(name for name, _ in atom.terms) if isinstance(atom, Linear) else (atom.column,)


def literals(condition: Condition) -> int:
    """Number of things a reader must check: one for each comparison, two for a `Between`, the columns of a sum."""
    return sum(2 if isinstance(atom, Between) else len(columns_of(atom)) for atom in atoms(condition))
