"""Pair: one code for a number and the zeros before it, so that frequent numbers reach further than rare ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from modelkit.packing.body import Body
from modelkit.packing.codes import Code
from modelkit.packing.encoding import TABLE, Streams, Words, look_up
from modelkit.packing.fixed import Fixed
from modelkit.packing.gap import placed

_BITS = (5, 6, 7, 8)
# The most zeros that a code says, and how many codes there may be for zeros alone.
_REACH, _FILLERS = 255, 4
# Pairs are for few numbers: each has codes for several runs.
_LEAST_RUNS = 4
_NEVER = 1 << 30


@dataclass(frozen=True)
class Pair:
    """Codes that each mean a run of zeros and the number behind it.

    Codes of one length carry the most where each is about as frequent as the others (Tunstall, "Synthesis of
    Noiseless Compression Codes", 1967). So a number that is frequent has codes for longer runs, a rare one for short
    runs only, and a few codes of zeros alone come before what is further away than that.
    """

    code: Code

    @property
    def name(self) -> str:
        """See `Encoding`."""
        return f"Pair_{self.code.name}"

    @property
    def doc(self) -> str:
        """See `Encoding`."""
        return "c: codes; g: zeros that each means, and v: the place in t of the number behind them"

    @property
    def inputs(self) -> list[str]:
        """See `Encoding`."""
        return [*self.code.inputs("c"), "g", "v", TABLE]

    @property
    def attributes(self) -> list[str]:
        """See `Encoding`."""
        return ["entries"]

    def table(self, words: Words) -> np.ndarray | None:
        """See `Encoding`."""
        return words.table

    def reads(self, words: Words) -> int:
        """See `Encoding`."""
        return self.code.depth * len(words.nonzero)

    def encode(self, words: Words) -> Streams:
        """See `Encoding`."""
        assert words.table is not None
        place, zeros, which, counts = _symbols(words)
        book = _best_book(place, zeros, counts, self._bits)
        assert book is not None
        found = book.parse(place, zeros, which)
        arrays = {**self.code.encode(found, "c"), "g": book.zeros, "v": book.places, TABLE: words.table}
        return Streams(arrays, {"entries": len(found)})

    @property
    def _bits(self) -> int:
        return self.code.bits if isinstance(self.code, Fixed) else 8

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        """See `Encoding`."""
        found = self.code.decode(streams.arrays, "c", streams.attributes["entries"])
        zeros, values = streams.arrays["g"], streams.arrays["v"]
        if len(zeros) != len(values):
            raise ValueError(f"{len(zeros)} runs of zeros have {len(values)} numbers behind them")
        ends = np.cumsum(look_up(zeros, found).astype(np.int64) + 1)
        if len(ends) and int(ends[-1]) > count:
            raise ValueError(f"an entry stands at {int(ends[-1]) - 1} of {count}")
        numbers = look_up(streams.arrays[TABLE], look_up(values, found))
        flat = np.zeros(count, numbers.dtype)
        flat[ends - 1] = numbers
        return flat

    def emit(self, body: Body, shape: str) -> str:
        """See `Encoding`."""
        found = self.code.emit(body, "c", body.attribute("entries"))
        gaps, entry = (body.integers(body.op("Gather", each, found)) for each in ("g", "v"))
        return placed(body, shape, gaps, entry)


@dataclass(frozen=True)
class _Book:
    """What each code means.

    Attributes:
        reach: For each place in the table, but the zero's, the zeros that its codes say: 0 to one less than this.
        lengths: Codes for zeros alone, how many each stands for, ascending.
    """

    reach: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def zeros(self) -> np.ndarray:
        """Zeros before the number, ``uint8[codes]``."""
        # A run of zeros alone is one less and a zero as the number behind.
        return np.concatenate([np.arange(each) for each in self.reach] + [np.array(self.lengths) - 1]).astype(
            np.uint8
        )

    @property
    def places(self) -> np.ndarray:
        """Place of the number in the table, ``uint8[codes]``."""
        others = np.repeat(np.arange(len(self.reach)) + 1, self.reach)
        return np.concatenate([others, np.zeros(len(self.lengths))]).astype(np.uint8)

    def _split(self, place: np.ndarray, zeros: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Longest runs, zeros in other codes of zeros alone, and zeros that are told with the number."""
        longest = self.lengths[-1]
        fewest, _ = _fewest(self.lengths)
        whole = np.where(zeros < np.array(self.reach)[place - 1], 0, np.maximum(0, zeros // longest - 1))
        left = zeros - whole * longest
        alone = np.empty_like(left)
        for number, reach in enumerate(self.reach, 1):
            # The number itself tells up to `reach` - 1 of them: the others are the cheapest of what is left then.
            own = place == number
            if own.any():
                windows = sliding_window_view(np.pad(fewest, (reach - 1, 0), constant_values=_NEVER), reach)
                alone[own] = (left - reach + 1 + windows.argmin(axis=1)[left])[own]
        return whole, alone, left - alone

    def entries(self, place: np.ndarray, zeros: np.ndarray, counts: np.ndarray) -> int:
        """How many codes numbers take that stand behind so many zeros."""
        whole, alone, _ = self._split(place, zeros)
        return int((counts * (whole + _fewest(self.lengths)[0][alone] + 1)).sum())

    def parse(self, place: np.ndarray, zeros: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The codes, ``uint8[entries]``: for each of `which` those of its place and zeros."""
        starts = np.concatenate([[0], np.cumsum(self.reach)]).tolist()
        fillers = {length: starts[-1] + number for number, length in enumerate(self.lengths)}
        _, last = _fewest(self.lengths)
        pool: list[int] = []
        bounds = [0]
        split = [each.tolist() for each in self._split(place, zeros)]
        for p, whole, alone, told in zip(place.tolist(), *split, strict=True):
            pool += [fillers[self.lengths[-1]]] * whole
            while alone:
                pool.append(fillers[int(last[alone])])
                alone -= int(last[alone])
            pool.append(starts[p - 1] + told)
            bounds.append(len(pool))
        many = np.diff(bounds)[which]
        first = np.array(bounds)[which]
        offsets = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
        return np.array(pool, np.uint8)[np.repeat(first, many) + offsets]


@lru_cache(maxsize=64)
def _fewest(lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For 0, 1, ... zeros the fewest runs of these lengths that come to them, and the last of these."""
    most = 3 * _REACH + 1
    fewest, last = np.full(most, _NEVER), np.zeros(most, np.int64)
    fewest[0] = 0
    for zeros in range(1, most):
        options = [(fewest[zeros - length] + 1, length) for length in lengths if length <= zeros]
        if options:
            fewest[zeros], last[zeros] = min(options)
    return fewest, last


def _symbols(words: Words) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which numbers stand behind how many zeros: places in the table, zeros, for each number which, and how often."""
    assert words.table is not None
    zeros = np.diff(words.nonzero, prepend=-1) - 1
    places = np.searchsorted(words.table, words.values)
    found, which, counts = np.unique(zeros * 256 + places, return_inverse=True, return_counts=True)
    return found % 256, found // 256, which.reshape(-1), counts


def _best_book(place: np.ndarray, zeros: np.ndarray, counts: np.ndarray, bits: int) -> _Book | None:
    """The codes of so many bits that take the fewest entries; None where there are too many numbers for them."""
    books = [book for many in range(1, _FILLERS + 1) if (book := _book(place, zeros, counts, bits, many)) is not None]
    return min(books, key=lambda book: book.entries(place, zeros, counts), default=None)


def _book(place: np.ndarray, zeros: np.ndarray, counts: np.ndarray, bits: int, fillers: int) -> _Book | None:
    """Codes for the pairs that are the most likely if numbers stand anywhere, and so many for zeros alone."""
    shares = np.bincount(place, weights=counts)[1:] / counts.sum()
    room = (1 << bits) - fillers
    if _LEAST_RUNS * len(shares) > room:
        return None
    # Runs of zeros are then geometric: each zero makes a run less likely by this factor, told as its logarithm.
    falls = np.log1p(1 / max(float((zeros * counts).sum() / counts.sum()), 1e-3))

    def reach(least: float) -> np.ndarray:
        return np.clip(np.ceil((np.log(shares) - least) / falls), 1, _REACH).astype(np.int64)

    low, high = -60.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if reach(middle).sum() <= room else (middle, high)
    reaches = reach(high)
    shortest = int(reaches.min())
    longest = max(shortest, min(_REACH, int(zeros.max())))
    lengths = np.unique(np.round(np.geomspace(shortest, longest, fillers)).astype(int)) if fillers > 1 else [shortest]
    return _Book(tuple(reaches.tolist()), tuple(int(length) for length in lengths))


def offers(words: Words) -> Iterator[tuple[Pair, int]]:
    """What can store a tensor, and the bytes of its arrays."""
    if words.table is None or not len(words.nonzero) or len(words.nonzero) == len(words.flat):
        return
    place, zeros, _, counts = _symbols(words)
    for bits in _BITS:
        book = _best_book(place, zeros, counts, bits)
        if book is None:
            continue
        entries = book.entries(place, zeros, counts)
        size = 2 * len(book.zeros) + words.table.nbytes
        yield Pair(Fixed(bits)), Fixed(bits).nbytes(np.array([entries])) + size
