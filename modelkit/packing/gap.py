"""Gap: where the numbers that are not zero stand, as distances in a few bits, and a code of a table for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelkit.packing import planes
from modelkit.packing.body import Body
from modelkit.packing.dense import look_up
from modelkit.packing.encoding import Streams, Words, bits_for, with_zero


@dataclass(frozen=True)
class Gap:
    """Relative indices of `gap_bits` bits; values by codes of `bits` bits, or with 0 bits as they are.

    Han, Mao and Dally, "Deep Compression" (2016), section 2: each entry says how many zeros stand before it. Where
    they are more than a code can say, an entry whose own value is zero comes between.
    """

    gap_bits: int
    bits: int

    @property
    def name(self) -> str:
        return f"Gap{self.gap_bits}x{self.bits or 'Raw'}"

    @property
    def inputs(self) -> list[str]:
        codes = planes.names("codes", self.bits) if self.bits else ["values"]
        return [*planes.names("gaps", self.gap_bits), *codes, *(["table"] if self.bits else [])]

    @property
    def attributes(self) -> list[str]:
        return ["entries"]

    def encode(self, words: Words) -> Streams:
        gaps, entries = self._entries(words)
        stored = planes.pack(gaps, self.gap_bits)
        if self.bits:
            assert words.nonzero_distinct is not None
            table = with_zero(words.nonzero_distinct)
            stored += [*planes.pack(np.searchsorted(table, entries).astype(np.uint8), self.bits), table]
        else:
            stored.append(with_zero(entries))
        return Streams(dict(zip(self.inputs, stored, strict=True)), {"entries": len(entries)})

    def _entries(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """The gap before each entry, and its value; what only bridges a distance is zero."""
        zeros = np.diff(words.nonzero, prepend=-1) - 1
        bridges = zeros // (1 << self.gap_bits)
        ends = np.cumsum(bridges + 1) - 1
        gaps = np.full(ends[-1] + 1 if len(ends) else 0, (1 << self.gap_bits) - 1, np.uint8)
        values = np.zeros(len(gaps), words.flat.dtype)
        gaps[ends] = zeros % (1 << self.gap_bits)
        values[ends] = words.values
        return gaps, values

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        entries = streams.attributes["entries"]
        stored = [streams.arrays[name] for name in self.inputs]
        split = len(planes.widths(self.gap_bits))
        gaps = planes.unpack(stored[:split], self.gap_bits, entries)
        places = np.cumsum(gaps.astype(np.int64) + 1) - 1
        if entries and int(places[-1]) >= count:
            raise ValueError(f"an entry stands at {int(places[-1])} of {count}")
        if self.bits:
            *codes, table = stored[split:]
            values = look_up(table, planes.unpack(codes, self.bits, entries))
        else:
            values = stored[-1][1:]
            if len(values) != entries:
                raise ValueError(f"{entries} gaps have {len(values)} values")
        flat = np.zeros(count, values.dtype)
        flat[places] = values
        return flat

    def emit(self, body: Body, shape: str) -> str:
        count = body.op("ReduceProd", shape, keepdims=1)
        entries = body.attribute("entries")
        one = body.constant(np.int32(1))
        gaps = body.integers(planes.emit(body, "gaps", self.gap_bits, entries))
        ends = body.op("CumSum", body.op("Add", gaps, one), body.constant(np.int32(0)))
        places = body.op("Sub", ends, one)
        if self.bits:
            table, codes = "table", body.integers(planes.emit(body, "codes", self.bits, entries))
        else:
            table = "values"
            ones = body.op("Expand", one, entries)
            codes = body.op("CumSum", ones, body.constant(np.int32(0)))
        nothing = body.op("Expand", body.constant(np.int32(0)), count)
        return body.op("Gather", table, body.op("ScatterElements", nothing, places, codes, axis=0), axis=0)


def offers(words: Words) -> Iterator[tuple[Gap, int]]:
    """What can store a tensor, and the bytes of its streams."""
    stored, width = len(words.nonzero), words.flat.dtype.itemsize
    if not stored or stored == len(words.flat):
        return
    zeros = np.diff(words.nonzero, prepend=-1) - 1
    for gap_bits in range(2, 9):
        entries = stored + int((zeros >> gap_bits).sum())
        gaps = planes.nbytes(entries, gap_bits)
        yield Gap(gap_bits, 0), gaps + (entries + 1) * width
        if words.nonzero_distinct is not None and len(words.nonzero_distinct) < 256:
            bits = bits_for(len(words.nonzero_distinct) + 1)
            yield (
                Gap(gap_bits, bits),
                gaps + planes.nbytes(entries, bits) + (len(words.nonzero_distinct) + 1) * width,
            )
