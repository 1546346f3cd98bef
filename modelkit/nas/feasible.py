"""Which candidates may be tried: they fit together, and keep the constraints on what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from modelkit.architectures.build import build, cost, parse
from modelkit.architectures.config import Cell
from modelkit.architectures.families import live_edges
from modelkit.architectures.signature import Signature
from modelkit.errors import ConfigError, ModelkitError
from modelkit.graph.save import saved_bytes
from modelkit.nas.config import Constraints
from modelkit.nas.space import Genome, Space

_DRAWN = 2000  # candidates that are looked at before a space counts as empty


@dataclass(frozen=True)
class Candidate:
    """A candidate that was looked at before it is trained.

    Attributes:
        document: What rebuilds it.
        parameters: Its parameters.
        macs: Its multiply-accumulates of one sample.
        reason: Why it may not be tried; "" where it may.
    """

    document: Mapping[str, Any]
    parameters: int = 0
    macs: int = 0
    reason: str = ""


class Problem(Protocol):
    """What is searched: a space, and what is known of a candidate before it is trained."""

    @property
    def space(self) -> Space:
        """All candidates."""

    def look(self, genome: Genome) -> Candidate:
        """What a candidate is, and whether it may be tried."""


@dataclass
class Architectures:
    """Architectures of a space, for data of one kind.

    Attributes:
        space: All candidates.
        signature: What they read and give.
        constraints: What they may cost.
    """

    space: Space
    signature: Signature
    constraints: Constraints
    _known: dict[Genome, Candidate] = field(default_factory=dict, init=False)

    def look(self, genome: Genome) -> Candidate:
        """See `Problem.look`."""
        if genome not in self._known:
            self._known[genome] = self._look(genome)
        return self._known[genome]

    def _look(self, genome: Genome) -> Candidate:
        document = self.space.decode(genome)
        try:
            architecture = parse(document, "candidate")
            taken = cost(architecture, self.signature)
        except ConfigError as error:
            return Candidate(document, reason=error.problems[0].partition(": ")[2] or error.message)
        except ModelkitError as error:
            return Candidate(document, reason=error.message)
        document = canonical(document, architecture)
        reason = over(self.constraints, taken.parameters, taken.macs)
        if not reason and self.constraints.max_bytes is not None:
            size = saved_bytes(build(architecture, self.signature))
            if size > self.constraints.max_bytes:
                reason = f"max_bytes: {size} bytes are more than {int(self.constraints.max_bytes)}"
        return Candidate(document, taken.parameters, taken.macs, reason)


def over(constraints: Constraints, parameters: int, macs: int) -> str:
    """Which constraint does not hold, with the figure; "" where all do."""
    for name, figure in (("parameters", parameters), ("macs", macs)):
        low, high = getattr(constraints, f"min_{name}"), getattr(constraints, f"max_{name}")
        if high is not None and figure > high:
            return f"max_{name}: {figure} are more than {high}"
        if low is not None and figure < low:
            return f"min_{name}: {figure} are fewer than {low}"
    return ""


def canonical(document: dict[str, Any], architecture: object) -> dict[str, Any]:
    """The same network in one way of writing: what is not computed is left out."""
    if isinstance(architecture, Cell):
        return {**document, "edges": {f"{a}-{b}": op for (a, b), op in sorted(live_edges(architecture).items())}}
    found = dict(document)
    for name, key in (("layers", "width"), ("stages", "depth")):
        if isinstance(found.get(name), list):
            found[name] = [each for each in found[name] if each.get(key) != 0]
    return found


def require_some(problem: Problem, seed: int) -> None:
    """Refuse a space in which nothing may be tried.

    Raises:
        ConfigError: Says which constraint empties it, and what the nearest candidate has.
    """
    rng = np.random.default_rng(seed)
    space = problem.space
    corners = [tuple(0 for _ in space.variables), tuple(len(v.values) - 1 for v in space.variables)]
    every = space.size <= _DRAWN
    genomes = list(space.all()) if every else [space.settled(corner) for corner in corners]
    if not every:
        genomes += [space.sample(rng) for _ in range(_DRAWN)]
    why: Counter[str] = Counter()
    nearest: dict[str, str] = {}
    for genome in genomes:
        reason = problem.look(genome).reason
        if not reason:
            return
        name, colon, said = reason.partition(": ")
        if not colon or not name.startswith(("max_", "min_")):
            name, said = reason, ""
        why[name] += 1
        if said and (name not in nearest or _figure(said) * _sign(name) < _figure(nearest[name]) * _sign(name)):
            nearest[name] = said
    looked = f"all {len(genomes)} architectures" if every else f"{len(genomes)} architectures that were drawn"
    problems = []
    for name, count in why.most_common(5):
        closest = f"; the nearest one: {nearest[name]}" if name in nearest else ""
        kind = f"constraints.{name}" if name in nearest else name
        problems.append(f"{kind} rules out {count} of {looked}{closest}")
    raise ConfigError(
        "the space is empty: no architecture keeps the constraints", problems, "widen the space or the constraints"
    )


def _figure(said: str) -> int:
    return int(said.split()[0])


def _sign(name: str) -> int:
    return 1 if name.startswith("max_") else -1
