"""Dense: a table of values, and for each number its place in the table in a few bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelkit.packing import planes
from modelkit.packing.body import Body
from modelkit.packing.encoding import Streams, Words, bits_for


@dataclass(frozen=True)
class Dense:
    """A table and codes of `bits` bits each.

    Han, Mao and Dally, "Deep Compression" (2016), section 3: weights that share values are stored as indices.
    """

    bits: int

    @property
    def name(self) -> str:
        return f"Dense{self.bits}"

    @property
    def inputs(self) -> list[str]:
        return [*planes.names("codes", self.bits), "table"]

    @property
    def attributes(self) -> list[str]:
        return []

    def encode(self, words: Words) -> Streams:
        assert words.distinct is not None
        codes = np.searchsorted(words.distinct, words.flat).astype(np.uint8)
        stored = dict(zip(self.inputs, [*planes.pack(codes, self.bits), words.distinct], strict=True))
        return Streams(stored, {})

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        *stored, table = (streams.arrays[name] for name in self.inputs)
        return look_up(table, planes.unpack(stored, self.bits, count))

    def emit(self, body: Body, shape: str) -> str:
        count = body.op("ReduceProd", shape, keepdims=1)
        codes = planes.emit(body, "codes", self.bits, count)
        return body.op("Gather", "table", body.integers(codes), axis=0)


def look_up(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Entries of a table.

    Raises:
        ValueError: A place lies outside of it.
    """
    if places.size and int(places.max()) >= len(table):
        raise ValueError(f"a code is {int(places.max())}, and the table has {len(table)} values")
    return np.asarray(table[places])


def offers(words: Words) -> Iterator[tuple[Dense, int]]:
    """What can store a tensor, and the bytes of its streams."""
    if words.distinct is not None and len(words.flat):
        bits = bits_for(len(words.distinct))
        yield Dense(bits), planes.nbytes(len(words.flat), bits) + words.distinct.nbytes
