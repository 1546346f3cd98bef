"""Mask: one bit for each number says whether it is zero; the others follow, as they are or as codes of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelkit.packing import planes
from modelkit.packing.body import Body
from modelkit.packing.dense import look_up
from modelkit.packing.encoding import Streams, Words, bits_for, with_zero


@dataclass(frozen=True)
class Mask:
    """A bit mask, and codes of `bits` bits for what is not zero; with 0 bits the values themselves.

    Table and values begin with the zero that all other numbers are.
    """

    bits: int

    @property
    def name(self) -> str:
        return f"Mask{self.bits or 'Raw'}"

    @property
    def inputs(self) -> list[str]:
        return [*planes.names("mask", 1), *(planes.names("codes", self.bits) if self.bits else []), "table"]

    @property
    def attributes(self) -> list[str]:
        return ["entries"] if self.bits else []

    def encode(self, words: Words) -> Streams:
        stored = planes.pack((words.flat != 0).astype(np.uint8), 1)
        if not self.bits:
            return Streams(dict(zip(self.inputs, [*stored, with_zero(words.values)], strict=True)), {})
        table = words.nonzero_distinct
        assert table is not None
        codes = np.searchsorted(table, words.values).astype(np.uint8)
        stored += [*planes.pack(codes, self.bits), with_zero(table)]
        return Streams(dict(zip(self.inputs, stored, strict=True)), {"entries": len(codes)})

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        first, *stored, values = (streams.arrays[name] for name in self.inputs)
        mask = planes.unpack([first], 1, count)
        if self.bits:
            codes = planes.unpack(stored, self.bits, streams.attributes["entries"])
            values = look_up(values, np.concatenate([[0], codes.astype(np.int64) + 1]))
        if len(values) - 1 != int(mask.sum()):
            raise ValueError(f"the mask has {int(mask.sum())} numbers, and {len(values) - 1} are stored")
        return look_up(values, np.cumsum(mask, dtype=np.int64) * mask)

    def emit(self, body: Body, shape: str) -> str:
        count = body.op("ReduceProd", shape, keepdims=1)
        mask = body.integers(planes.emit(body, "mask", 1, count))
        places = body.op("Mul", body.op("CumSum", mask, body.constant(np.int32(0))), mask)
        values = "table"
        if self.bits:
            # The table is looked up once for each number that is stored, not once for each zero.
            codes = body.integers(planes.emit(body, "codes", self.bits, body.attribute("entries")))
            codes = body.op("Add", codes, body.constant(np.int32(1)))
            codes = body.op("Concat", body.constant(np.zeros(1, np.int32)), codes, axis=0)
            values = body.op("Gather", "table", codes, axis=0)
        return body.op("Gather", values, places, axis=0)


def offers(words: Words) -> Iterator[tuple[Mask, int]]:
    """What can store a tensor, and the bytes of its streams."""
    count, stored, width = len(words.flat), len(words.nonzero), words.flat.dtype.itemsize
    if stored == count or not stored:
        return
    mask = planes.nbytes(count, 1)
    yield Mask(0), mask + (stored + 1) * width
    if words.nonzero_distinct is not None:
        bits = bits_for(len(words.nonzero_distinct))
        yield Mask(bits), mask + planes.nbytes(stored, bits) + (len(words.nonzero_distinct) + 1) * width
