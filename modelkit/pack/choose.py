"""Chooses an encoding for each weight: the fewest bytes in all, the functions that must come along counted in."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from modelkit.packing.body import LEAST_OPSET
from modelkit.packing.catalog import by_name
from modelkit.packing.encoding import Encoding, Words, functions
from modelkit.packing.fours import KINDS, fours_function
from modelkit.packing.steps import STEPS, steps_function, steps_of

# What a node and the heads of its initializers take in a file, without names and numbers.
_NODE_BYTES, _STREAM_BYTES = 60, 16
# What onnxruntime takes on one thread, as it loads a model, to fold a node and to read one bit of a prefix code.
_NODE_SECONDS, _READ_SECONDS = 120e-6, 60e-9


@dataclass(frozen=True)
class Offer:
    """One way to store one weight.

    Attributes:
        name: Of the weight.
        encoding: How.
        streams: Bytes of its streams.
        total: Bytes with the node and the names that it takes, without the function.
        seconds: What it adds to the time that loading takes, roughly.
        quick: Whether no bits are read one after another.
        steps: Whether its table is stored as multiples of a number.
        fours: The function behind it, where the weight is of a 4-bit type.
    """

    name: str
    encoding: Encoding
    streams: int
    total: int
    seconds: float
    quick: bool
    steps: bool = False
    fours: str | None = None

    @classmethod
    def of(cls, name: str, encoding: Encoding, streams: int, words: Words, fours: str | None = None) -> Offer:
        """Add what else the offer takes in a file to the bytes of its streams."""
        names = sum(2 * (len(name) + 1 + len(each)) + _STREAM_BYTES for each in encoding.inputs)
        total, reads = streams + names + _NODE_BYTES + len(name), encoding.reads(words)
        total += _NODE_BYTES + 3 * len(name) if fours else 0
        seconds = _nodes(encoding.name) * _NODE_SECONDS + reads * _READ_SECONDS
        saved = _steps_save(encoding, words)
        # Another node, another name, and one more initializer.
        more = _NODE_BYTES + 2 * _STREAM_BYTES + 4 * (len(name) + 3)
        if saved <= more:
            return cls(name, encoding, streams, total, seconds, reads == 0, fours=fours)
        return cls(name, encoding, streams - saved, total - saved + more, seconds, reads == 0, steps=True)


def _steps_save(encoding: Encoding, words: Words) -> int:
    """Bytes by which a table is smaller as multiples of a number; 0 where it is none."""
    table = encoding.table(words)
    if table is None or words.kind is None or steps_of(table.view(words.kind)) is None:
        return 0
    return table.nbytes - len(table) - table.itemsize


@cache
def _nodes(name: str) -> int:
    """Nodes that the function of an encoding comes to, with those of what it calls."""
    encoding = by_name(name)
    assert encoding is not None
    inner: dict[str, int] = {}
    for each in functions(encoding, LEAST_OPSET):
        inner[each.name] = sum(inner.get(node.op_type, 1) for node in each.node)
    return inner[name]


@cache
def function_bytes(names: frozenset[str]) -> int:
    """Bytes of the functions of these encodings, and of what they call."""
    needed = {}
    for name in names:
        if name == STEPS.name:
            needed[name] = steps_function(LEAST_OPSET).ByteSize() + 4
            continue
        if name in KINDS:
            needed[name] = fours_function(name, LEAST_OPSET).ByteSize() + 4
            continue
        encoding = by_name(name)
        assert encoding is not None
        needed.update({each.name: each.ByteSize() + 4 for each in functions(encoding, LEAST_OPSET)})
    return sum(needed.values())


def choose(
    offers: Mapping[str, Sequence[Offer]], plain: Mapping[str, int], *, seconds: float = math.inf
) -> dict[str, Offer]:
    """Assign encodings to weights: what makes the file smallest of all that is loaded fast enough.

    Args:
        offers: What each weight may become.
        plain: Bytes that each takes as it is.
        seconds: What all of them together may add to the time that loading takes.

    Returns:
        The offer for each weight that is to be packed.
    """
    left = {name: list(each) for name, each in offers.items()}
    while True:
        best = _smallest(left, plain)
        excess = sum(offer.seconds for offer in best.values()) - seconds
        if excess <= 0:
            return best
        # What buys the fewest bytes with its time goes first: prefix codes, and where there are none, packing at all.
        slow = [offer for offer in best.values() if not offer.quick] or list(best.values())
        for offer in sorted(slow, key=lambda each: (_saving(each, left[each.name], plain) / each.seconds, each.name)):
            left[offer.name] = [] if offer.quick else [each for each in left[offer.name] if each.quick]
            excess -= offer.seconds - min((each.seconds for each in left[offer.name]), default=0.0)
            if excess <= 0:
                break


def _saving(offer: Offer, others: Sequence[Offer], plain: Mapping[str, int]) -> int:
    """Bytes that an offer is smaller by than the next best that takes less time."""
    quick = [] if offer.quick else [other.total for other in others if other.quick]
    return min([*quick, plain[offer.name]]) - offer.total


def _smallest(offers: Mapping[str, Sequence[Offer]], plain: Mapping[str, int]) -> dict[str, Offer]:
    """The offers that make the file smallest, functions included.

    A function costs a kilobyte once, however many weights are rebuilt by it. Functions are given up one by one as
    long as that makes the whole smaller, and added one by one, beginning with none; once with all of them and once
    without those of prefix codes, since each way may end in a dead end.
    """
    table = _Table(offers, plain)
    quick = [number for number, name in enumerate(table.functions) if table.quick[name]]
    every = list(range(len(table.functions)))
    ways = [table.descend(every), table.descend(quick), table.ascend(every), table.ascend(quick)]
    return table.offers_with(min(ways, key=table.size))


class _Table:
    """What weights take with each function.

    Args:
        offers: What each weight may become.
        plain: Bytes that each takes as it is.
    """

    def __init__(self, offers: Mapping[str, Sequence[Offer]], plain: Mapping[str, int]) -> None:
        self._best: dict[tuple[str, str], Offer] = {}
        for each in (offer for group in offers.values() for offer in group):
            key = each.name, each.encoding.name
            if key not in self._best or each.total < self._best[key].total:
                self._best[key] = each
        self.quick = {offer.encoding.name: offer.quick for offer in self._best.values()}
        self.functions = sorted(self.quick)
        self._names = list(offers)
        self._plain = np.array([plain[name] for name in self._names], np.int64)
        self._totals = np.full((len(self._names), len(self.functions)), np.iinfo(np.int64).max)
        rows, columns = ({each: n for n, each in enumerate(names)} for names in (self._names, self.functions))
        for (name, function), offer in self._best.items():
            self._totals[rows[name], columns[function]] = offer.total

    def size(self, allowed: Sequence[int]) -> int:
        """Bytes of all weights, each in its smallest form with these functions, and of the functions."""
        if not allowed or not self._names:
            return int(self._plain.sum())
        part = self._totals[:, allowed]
        where = part.argmin(axis=1)
        least = part[np.arange(len(part)), where]
        used = sorted({allowed[number] for number in where[least < self._plain].tolist()})
        names = {self.functions[number] for number in used}
        return int(np.minimum(least, self._plain).sum()) + function_bytes(frozenset(names))

    def descend(self, allowed: Sequence[int]) -> list[int]:
        """Give up functions as long as that makes the whole smaller."""
        left, size = list(allowed), self.size(allowed)
        while True:
            used = self._used(left)
            trials = [[each for each in left if each != gone] for gone in used]
            sizes = [self.size(trial) for trial in trials]
            if not trials or min(sizes) > size:
                return used
            left, size = trials[sizes.index(min(sizes))], min(sizes)

    def ascend(self, allowed: Sequence[int]) -> list[int]:
        """Add functions as long as that makes the whole smaller."""
        taken, size = list[int](), self.size([])
        while True:
            trials = [sorted([*taken, each]) for each in allowed if each not in taken]
            sizes = [self.size(trial) for trial in trials]
            if not trials or min(sizes) >= size:
                return taken
            taken, size = trials[sizes.index(min(sizes))], min(sizes)

    def _used(self, allowed: Sequence[int]) -> list[int]:
        names = {offer.encoding.name for offer in self.offers_with(allowed).values()}
        return [each for each in allowed if self.functions[each] in names]

    def offers_with(self, allowed: Sequence[int]) -> dict[str, Offer]:
        """The smallest form of each weight with these functions; not of those that are smaller as they are."""
        found: dict[str, Offer] = {}
        if not allowed or not self._names:
            return found
        for row, column in enumerate(self._totals[:, allowed].argmin(axis=1).tolist()):
            if self._totals[row, allowed[column]] < self._plain[row]:
                name = self._names[row]
                found[name] = self._best[name, self.functions[allowed[column]]]
        return found


def functions_of(offers: Collection[Offer]) -> frozenset[str]:
    """Names of the functions that offers need, without those that these call."""
    found = {offer.encoding.name for offer in offers}
    found |= {offer.fours for offer in offers if offer.fours}
    return frozenset(found | ({STEPS.name} if any(offer.steps for offer in offers) else set()))


def entropy_bytes(words: Words) -> float:
    """Zero-order entropy of numbers, in bytes: what no code for single numbers goes below."""
    counts = words.histogram[words.histogram > 0]
    return float((counts * np.log2(len(words.flat) / counts)).sum() / 8)
