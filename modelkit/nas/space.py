"""A finite space of documents: variables with their values, sampled, changed a little, encoded and told apart."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Genome = tuple[int, ...]
"""For each variable the place of its value; 0 where a condition switches it off."""

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Variable:
    """What may differ between candidates.

    Attributes:
        path: Where it stands in the document.
        values: What it may be, two values or more.
        ordered: Whether neighbours in the list are alike: numbers.
        when: Name of another variable or value -> what it must be for this one to count.
    """

    path: Path
    values: tuple[Any, ...]
    ordered: bool
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its path with dots."""
        return ".".join(map(str, self.path))


@dataclass(frozen=True)
class Space:
    """All candidates.

    Attributes:
        template: The document with everything that does not differ.
        variables: What does, in order.
    """

    template: Mapping[str, Any]
    variables: tuple[Variable, ...]

    @property
    def size(self) -> int:
        """How many genomes there are at most; those that conditions make alike count each."""
        return math.prod(len(v.values) for v in self.variables)

    @property
    def hash(self) -> str:
        """Tells spaces apart (SHA-256, 16 hex digits)."""
        facts = [self.template, [[v.name, v.values, sorted(v.when.items())] for v in self.variables]]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def decode(self, genome: Genome) -> dict[str, Any]:
        """Return the document of a candidate; a variable that is switched off is left out."""
        document = deepcopy(dict(self.template))
        for variable, place, live in zip(self.variables, genome, self.active(genome), strict=True):
            if live:
                _put(document, variable.path, variable.values[place])
        return document

    def active(self, genome: Genome) -> list[bool]:
        """For each variable whether its conditions hold. A condition on one that is switched off does not."""
        places = {v.name: number for number, v in enumerate(self.variables)}
        known: dict[int, bool] = {}

        def is_active(number: int) -> bool:
            if number not in known:
                known[number] = False  # conditions in a circle never hold
                known[number] = all(holds(name, allowed) for name, allowed in self.variables[number].when.items())
            return known[number]

        def holds(name: str, allowed: Sequence[Any]) -> bool:
            if name in places:
                other = places[name]
                return is_active(other) and self.variables[other].values[genome[other]] in allowed
            return _get(self.template, name) in allowed

        return [is_active(number) for number in range(len(self.variables))]

    def settled(self, genome: Sequence[int]) -> Genome:
        """The same candidate with 0 for each variable that is switched off."""
        genome = tuple(genome)
        while True:
            found = tuple(place if live else 0 for place, live in zip(genome, self.active(genome), strict=True))
            if found == genome:
                return found
            genome = found

    def sample(self, rng: np.random.Generator) -> Genome:
        """A candidate at random, each variable evenly."""
        return self.settled([int(rng.integers(len(v.values))) for v in self.variables])

    def neighbours(self, genome: Genome) -> list[Genome]:
        """All candidates that differ in one variable: by one step where values are ordered, else by any."""
        found = []
        for number, (variable, live) in enumerate(zip(self.variables, self.active(genome), strict=True)):
            for place in self._near(variable, genome[number]) if live else ():
                found.append(self.settled((*genome[:number], place, *genome[number + 1 :])))
        return sorted(set(found) - {genome})

    def mutate(self, genome: Genome, rng: np.random.Generator, changes: int = 1) -> Genome:
        """A candidate that differs in so many variables, or in one more now and then."""
        found = genome
        for _ in range(changes):
            near = self.neighbours(found)
            if near:
                # First the variable, then its value: those with many values are not preferred.
                differ = [next(i for i, (a, b) in enumerate(zip(found, n, strict=True)) if a != b) for n in near]
                variable = rng.choice(sorted(set(differ)))
                options = [n for n, d in zip(near, differ, strict=True) if d == variable]
                found = options[int(rng.integers(len(options)))]
        return found

    def cross(self, one: Genome, other: Genome, rng: np.random.Generator) -> Genome:
        """A child that has each value of one parent or the other."""
        return self.settled([a if rng.random() < 0.5 else b for a, b in zip(one, other, strict=True)])

    def encode(self, genome: Genome) -> np.ndarray:
        """Numbers for models: ordered variables from 0 to 1, others one-hot; 0 where switched off."""
        parts: list[float] = []
        for variable, place, live in zip(self.variables, genome, self.active(genome), strict=True):
            count = len(variable.values)
            if variable.ordered:
                parts.append(place / (count - 1) if live else 0.0)
            else:
                parts += [float(live and number == place) for number in range(count)]
        return np.array(parts)

    def all(self) -> Iterator[Genome]:
        """Every candidate, once each."""
        seen: set[Genome] = set()
        for places in np.ndindex(*(len(v.values) for v in self.variables)):
            genome = self.settled(places)
            if genome not in seen:
                seen.add(genome)
                yield genome

    @staticmethod
    def _near(variable: Variable, place: int) -> list[int]:
        if not variable.ordered:
            return [other for other in range(len(variable.values)) if other != place]
        return [other for other in (place - 1, place + 1) if 0 <= other < len(variable.values)]


def key_of(document: Mapping[str, Any]) -> str:
    """Tells candidates apart by what they are (SHA-256, 16 hex digits)."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _put(document: Any, path: Path, value: Any) -> None:
    whole: Any = document
    for part in path[:-1]:
        whole = whole[part] if isinstance(part, int) else whole.setdefault(part, {})
    whole[path[-1]] = value


def _get(document: Any, name: str) -> Any:
    for part in name.split("."):
        if isinstance(document, list) and part.isdecimal() and int(part) < len(document):
            document = document[int(part)]
        elif isinstance(document, Mapping) and part in document:
            document = document[part]
        else:
            return None
    return document
