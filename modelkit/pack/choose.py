"""Chooses an encoding for each weight: the fewest bytes in all, the functions that must come along counted in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from modelkit.packing.catalog import by_name
from modelkit.packing.encoding import Encoding, Words, functions

# What a node and the heads of its initializers take in a file, without names and numbers.
_NODE_BYTES, _STREAM_BYTES = 60, 16
# One bit of a prefix code, read by onnxruntime on one thread while it loads the model.
_READ_SECONDS = 60e-9


@dataclass(frozen=True)
class Offer:
    """One way to store one weight.

    Attributes:
        name: Of the weight.
        encoding: How.
        streams: Bytes of its streams.
        total: Bytes with the node and the names that it takes, without the function.
        seconds: What it adds to the time that loading takes, roughly.
    """

    name: str
    encoding: Encoding
    streams: int
    total: int
    seconds: float

    @classmethod
    def of(cls, name: str, encoding: Encoding, streams: int, words: Words) -> Offer:
        """Add what else the offer takes in a file to the bytes of its streams."""
        names = sum(2 * (len(name) + 1 + len(each)) + _STREAM_BYTES for each in encoding.inputs)
        total = streams + names + _NODE_BYTES + len(name)
        return cls(name, encoding, streams, total, encoding.reads(words) * _READ_SECONDS)


@cache
def _function_bytes(names: frozenset[str]) -> int:
    """Bytes of the functions of these encodings, and of what they call."""
    needed = {}
    for name in names:
        encoding = by_name(name)
        assert encoding is not None
        needed.update({each.name: each.ByteSize() + 4 for each in functions(encoding, 18)})
    return sum(needed.values())


def choose(
    offers: Mapping[str, Sequence[Offer]], plain: Mapping[str, int], *, seconds: float = math.inf
) -> dict[str, Offer]:
    """Assign encodings to weights.

    A function costs a kilobyte once, however many weights are rebuilt by it. So after each weight has its
    smallest form, functions are given up one by one as long as that makes the whole smaller.

    Args:
        offers: What each weight may become.
        plain: Bytes that each takes as it is.
        seconds: What all of them together may add to the time that loading takes.

    Returns:
        The offer for each weight that is to be packed.
    """
    open_ = {name: list(each) for name, each in offers.items()}
    while True:
        best = _smallest(open_, plain)
        slow = [offer for offer in best.values() if offer.seconds > 0]
        if not slow or sum(offer.seconds for offer in best.values()) <= seconds:
            return best
        # What buys the fewest bytes with its time goes first.
        worst = min(slow, key=lambda offer: (_saving(offer, open_[offer.name]) / offer.seconds, offer.name))
        open_[worst.name] = [offer for offer in open_[worst.name] if offer.seconds == 0]


def _saving(offer: Offer, others: Sequence[Offer]) -> int:
    """Bytes that an offer is smaller by than the best one that takes no time."""
    return min((other.total for other in others if other.seconds == 0), default=1 << 62) - offer.total


def _smallest(offers: Mapping[str, Sequence[Offer]], plain: Mapping[str, int]) -> dict[str, Offer]:
    """The offers that make the file smallest, functions included.

    A function costs a kilobyte once, however many weights are rebuilt by it. So after each weight has its smallest
    form, functions are given up one by one as long as that makes the whole smaller: once with all, and once without
    those of prefix codes, since either way may end in a dead end.
    """
    every = {offer.encoding.name for each in offers.values() for offer in each}
    quick = {offer.encoding.name for each in offers.values() for offer in each if offer.seconds == 0}
    return min((_descend(offers, plain, allowed) for allowed in (every, quick)), key=lambda found: found[1])[0]


def _descend(
    offers: Mapping[str, Sequence[Offer]], plain: Mapping[str, int], allowed: set[str]
) -> tuple[dict[str, Offer], int]:
    """Give up functions one by one, and say which offers are left and how many bytes they take."""
    best, size = _assign(offers, plain, allowed)
    while True:
        used = {offer.encoding.name for offer in best.values()}
        trials = [(*_assign(offers, plain, used - {name}), name) for name in sorted(used)]
        if not trials:
            return best, size
        fewer, less, _ = min(trials, key=lambda trial: (trial[1], trial[2]))
        if less > size:
            return best, size
        best, size = fewer, less


def _assign(
    offers: Mapping[str, Sequence[Offer]], plain: Mapping[str, int], allowed: set[str]
) -> tuple[dict[str, Offer], int]:
    """The smallest form of each weight with these functions, and the bytes of all."""
    best: dict[str, Offer] = {}
    total = 0
    for name, each in offers.items():
        open_ = [offer for offer in each if offer.encoding.name in allowed]
        found = min(open_, key=lambda offer: (offer.total, offer.encoding.name), default=None)
        if found is None or found.total >= plain[name]:
            total += plain[name]
            continue
        best[name] = found
        total += found.total
    return best, total + _function_bytes(frozenset(offer.encoding.name for offer in best.values()))


def entropy_bytes(flat: np.ndarray) -> float:
    """Zero-order entropy of numbers, in bytes: what no code for single numbers goes below."""
    if not flat.size:
        return 0.0
    shares = np.unique(flat, return_counts=True)[1] / flat.size
    return float(-(shares * np.log2(shares)).sum() * flat.size / 8)
