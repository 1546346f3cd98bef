"""Gap: where the numbers that are not zero stand, as distances of few bits, and a code of a table for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelkit.packing import codes
from modelkit.packing.body import Body
from modelkit.packing.codes import Code
from modelkit.packing.encoding import TABLE, Streams, Words, look_up, with_zero
from modelkit.packing.fixed import Fixed
from modelkit.packing.prefix import Prefix

_REACHES = (32, 64, 128, 255)
_SMALL = 10_000


@dataclass(frozen=True)
class Gap:
    """Codes for distances, and codes for the values; without the latter, the values as they are.

    Han, Mao and Dally, "Deep Compression" (2016), section 2: each entry says how many zeros stand before it. Where
    they are more than a code can say, an entry whose own value is zero comes between.
    """

    gaps: Code
    code: Code | None

    @property
    def name(self) -> str:
        """See `Encoding`."""
        return f"Gap_{self.gaps.name}_{self.code.name if self.code else 'raw'}"

    @property
    def doc(self) -> str:
        """See `Encoding`."""
        return "g: zeros before each number; c: its place in t"

    @property
    def inputs(self) -> list[str]:
        """See `Encoding`."""
        return [*self.gaps.inputs("g"), *(self.code.inputs("c") if self.code else []), TABLE]

    @property
    def attributes(self) -> list[str]:
        """See `Encoding`."""
        return ["entries"]

    def table(self, words: Words) -> np.ndarray | None:
        """See `Encoding`."""
        return words.table if self.code else None

    def reads(self, words: Words) -> int:
        """See `Encoding`."""
        return (self.gaps.depth + (self.code.depth if self.code else 0)) * len(words.nonzero)

    def encode(self, words: Words) -> Streams:
        """See `Encoding`."""
        steps, where = _steps(words, _reach(self.gaps, words))
        values = np.zeros(len(steps), words.flat.dtype)
        values[where] = words.values
        stored = self.gaps.encode(steps, "g")
        if self.code is None:
            stored[TABLE] = with_zero(values)
        else:
            assert words.table is not None
            places = np.searchsorted(words.table, values).astype(np.uint8)
            stored = {**stored, **self.code.encode(places, "c"), TABLE: words.table}
        return Streams(stored, {"entries": len(steps)})

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        """See `Encoding`."""
        entries = streams.attributes["entries"]
        steps = self.gaps.decode(streams.arrays, "g", entries)
        places = np.cumsum(steps.astype(np.int64) + 1) - 1
        if entries and int(places[-1]) >= count:
            raise ValueError(f"an entry stands at {int(places[-1])} of {count}")
        table = streams.arrays[TABLE]
        if self.code is not None:
            values = look_up(table, self.code.decode(streams.arrays, "c", entries))
        elif len(table) == entries + 1:
            values = table[1:]
        else:
            raise ValueError(f"{entries} gaps have {len(table) - 1} values")
        flat = np.zeros(count, values.dtype)
        flat[places] = values
        return flat

    def emit(self, body: Body, shape: str) -> str:
        """See `Encoding`."""
        entries = body.attribute("entries")
        gaps = self.gaps.emit(body, "g", entries)
        if self.code is not None:
            entry = self.code.emit(body, "c", entries)
        else:
            one = body.op("Expand", body.constant(np.int32(1)), entries)
            entry = body.op("CumSum", one, body.constant(np.int32(0)))
        return placed(body, shape, gaps, entry)


def placed(body: Body, shape: str, gaps: str, entry: str) -> str:
    """Numbers of a table, each behind so many zeros; the flat result."""
    one, first = body.constant(np.int32(1)), body.constant(np.int32(0))
    count = body.op("ReduceProd", shape, keepdims=1)
    places = body.op("Sub", body.op("CumSum", body.op("Add", gaps, one), first), one)
    which = body.op("ScatterElements", body.op("Expand", first, count), places, entry)
    return body.op("Gather", TABLE, which)


def _reach(gaps: Code, words: Words) -> int:
    """How many distances a code tells apart: of a prefix code as many as take the fewest bytes."""
    if isinstance(gaps, Fixed):
        return 1 << gaps.bits
    return _best_reach(words)


def _best_reach(words: Words) -> int:
    return min(_REACHES, key=lambda reach: (_cost(words, reach), -reach))


def _cost(words: Words, reach: int) -> float:
    """Roughly the bytes of gaps by frequency: each distance that occurs is listed, and each bridge needs a value."""
    steps, _ = _steps(words, reach)
    counts = np.bincount(steps)
    counts = counts[counts > 0]
    bits = float((counts * np.log2(len(steps) / counts)).sum())
    return bits / 8 + len(counts) + (len(steps) - len(words.nonzero)) / 2


def _steps(words: Words, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The zeros before each entry, ``uint8[entries]``, and which entries are no mere bridges."""
    zeros = np.diff(words.nonzero, prepend=-1) - 1
    where = np.cumsum(zeros // reach + 1) - 1
    steps = np.full(where[-1] + 1, reach - 1, np.uint8)
    steps[where] = zeros % reach
    return steps, where


def offers(words: Words, *, prefix: bool) -> Iterator[tuple[Gap, int]]:
    """What can store a tensor, and the bytes of its arrays."""
    stored = len(words.nonzero)
    if not stored or stored == len(words.flat):
        return
    zeros = np.diff(words.nonzero, prepend=-1) - 1
    entries = {bits: stored + int((zeros >> bits).sum()) for bits in range(1, 9)}
    # An entry costs its gap and its value: the width is best at another place for values of one bit and of 32.
    value_bits = {
        8 * words.flat.dtype.itemsize,
        *([codes.bits_for(len(words.table))] if words.table is not None else []),
    }
    best = {min(entries, key=lambda b: entries[b] * (b + value)) for value in value_bits}
    # Small weights may be better off with the function of another one than with the fewest bits.
    shared = {4, 5, 6, 7, 8} if stored < _SMALL else set()
    for bits in sorted(best | shared):
        gaps = Fixed(bits)
        yield from _with_values(words, gaps, gaps.nbytes(np.array([entries[bits]])), entries[bits], prefix)
    if prefix:
        steps, _ = _steps(words, _best_reach(words))
        for code, size in codes.offers(np.bincount(steps), prefix=True):
            if isinstance(code, Prefix):
                yield from _with_values(words, code, size, len(steps), prefix)


def _with_values(words: Words, gaps: Code, size: int, entries: int, prefix: bool) -> Iterator[tuple[Gap, int]]:
    """Every way to store the values beside these gaps."""
    yield Gap(gaps, None), size + (entries + 1) * words.flat.dtype.itemsize
    if words.table is None:
        return
    histogram = words.histogram.copy()
    histogram[0] = entries - len(words.nonzero)
    for code, more in codes.offers(histogram, prefix=prefix):
        yield Gap(gaps, code), size + more + words.table.nbytes
