"""Mask: one bit for each number says whether it is zero; the others follow, as they are or as codes of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelkit.packing import codes
from modelkit.packing.body import Body
from modelkit.packing.codes import Code
from modelkit.packing.encoding import TABLE, Streams, Words, look_up, with_zero
from modelkit.packing.fixed import Fixed

_MASK = Fixed(1)


@dataclass(frozen=True)
class Mask:
    """A bit mask, and codes for what is not zero; without a code the values themselves.

    Table and values begin with the zero that all other numbers are.
    """

    code: Code | None

    @property
    def name(self) -> str:
        """See `Encoding`."""
        return f"Mask_{self.code.name if self.code else 'raw'}"

    @property
    def doc(self) -> str:
        """See `Encoding`."""
        return "m: which numbers are not zero; c: their places in t"

    @property
    def inputs(self) -> list[str]:
        """See `Encoding`."""
        return [*_MASK.inputs("m"), *(self.code.inputs("c") if self.code else []), TABLE]

    @property
    def attributes(self) -> list[str]:
        """See `Encoding`."""
        return ["entries"] if self.code else []

    def table(self, words: Words) -> np.ndarray | None:
        """See `Encoding`."""
        return words.table if self.code else None

    def reads(self, words: Words) -> int:
        """See `Encoding`."""
        return self.code.depth * len(words.nonzero) if self.code else 0

    def encode(self, words: Words) -> Streams:
        """See `Encoding`."""
        mask = _MASK.encode((words.flat != 0).astype(np.uint8), "m")
        if self.code is None:
            return Streams({**mask, TABLE: with_zero(words.values)}, {})
        table = words.table
        assert table is not None
        places = (np.searchsorted(table, words.values) - 1).astype(np.uint8)
        return Streams({**mask, **self.code.encode(places, "c"), TABLE: table}, {"entries": len(places)})

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        """See `Encoding`."""
        mask = _MASK.decode(streams.arrays, "m", count)
        values = streams.arrays[TABLE]
        if self.code is not None:
            places = self.code.decode(streams.arrays, "c", streams.attributes["entries"])
            values = look_up(values, np.concatenate([[0], places.astype(np.int64) + 1]))
        if len(values) - 1 != int(mask.sum()):
            raise ValueError(f"the mask has {int(mask.sum())} numbers, and {len(values) - 1} are stored")
        return look_up(values, np.cumsum(mask, dtype=np.int64) * mask)

    def emit(self, body: Body, shape: str) -> str:
        """See `Encoding`."""
        count = body.op("ReduceProd", shape, keepdims=1)
        mask = _MASK.emit(body, "m", count)
        places = body.op("Mul", body.op("CumSum", mask, body.constant(np.int32(0))), mask)
        values = TABLE
        if self.code is not None:
            # The table is looked up once for each number that is stored, not once for each zero.
            stored = self.code.emit(body, "c", body.attribute("entries"))
            stored = body.op("Add", stored, body.constant(np.int32(1)))
            stored = body.op("Concat", body.constant(np.zeros(1, np.int32)), stored, axis=0)
            values = body.op("Gather", TABLE, stored)
        return body.op("Gather", values, places)


def offers(words: Words, *, prefix: bool) -> Iterator[tuple[Mask, int]]:
    """What can store a tensor, and the bytes of its arrays."""
    count, stored, width = len(words.flat), len(words.nonzero), words.flat.dtype.itemsize
    if stored == count or not stored:
        return
    mask = _MASK.nbytes(np.array([count]))
    yield Mask(None), mask + (stored + 1) * width
    if words.table is not None:
        for code, size in codes.offers(words.histogram[1:], prefix=prefix):
            yield Mask(code), mask + size + words.table.nbytes
