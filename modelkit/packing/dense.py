"""Dense: a table of values, and for each number a code for its place in the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelkit.packing import codes
from modelkit.packing.body import Body
from modelkit.packing.codes import Code
from modelkit.packing.encoding import TABLE, Streams, Words, look_up


@dataclass(frozen=True)
class Dense:
    """A table and a code for each number.

    Han, Mao and Dally, "Deep Compression" (2016), section 3: weights that share values are stored as indices.
    """

    code: Code

    @property
    def name(self) -> str:
        """See `Encoding`."""
        return f"Dense_{self.code.name}"

    @property
    def doc(self) -> str:
        """See `Encoding`."""
        return "c: a code for each number, its place in t"

    @property
    def inputs(self) -> list[str]:
        """See `Encoding`."""
        return [*self.code.inputs("c"), TABLE]

    @property
    def attributes(self) -> list[str]:
        """See `Encoding`."""
        return []

    def table(self, words: Words) -> np.ndarray | None:
        """See `Encoding`."""
        return _table(words)

    def reads(self, words: Words) -> int:
        """See `Encoding`."""
        return self.code.depth * len(words.flat)

    def encode(self, words: Words) -> Streams:
        """See `Encoding`."""
        table = _table(words)
        places = np.searchsorted(table, words.flat).astype(np.uint8)
        return Streams({**self.code.encode(places, "c"), TABLE: table}, {})

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        """See `Encoding`."""
        return look_up(streams.arrays[TABLE], self.code.decode(streams.arrays, "c", count))

    def emit(self, body: Body, shape: str) -> str:
        """See `Encoding`."""
        count = body.op("ReduceProd", shape, keepdims=1)
        return body.op("Gather", TABLE, self.code.emit(body, "c", count))


def _table(words: Words) -> np.ndarray:
    """The values that occur, zero only if it does."""
    assert words.table is not None
    return words.table if words.histogram[0] else words.table[1:]


def offers(words: Words, *, prefix: bool) -> Iterator[tuple[Dense, int]]:
    """What can store a tensor, and the bytes of its arrays."""
    if words.table is None or not len(words.flat):
        return
    histogram = words.histogram if words.histogram[0] else words.histogram[1:]
    for code, size in codes.offers(histogram, prefix=prefix):
        yield Dense(code), size + _table(words).nbytes
