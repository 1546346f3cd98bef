"""Blocks: zeros that come in blocks take one bit for a whole block; the numbers of the others follow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelkit.packing import codes
from modelkit.packing.body import Body
from modelkit.packing.codes import Code
from modelkit.packing.encoding import TABLE, Streams, Words, look_up, with_zero
from modelkit.packing.fixed import Fixed

_MASK = Fixed(1)
_RUNS = (2, 4, 8, 16, 32)
# Numbers that tell whether it is worth looking at all of them, and zeros in blocks that are kept, as a share.
_PROBE, _LOOSE = 1 << 16, 0.25


@dataclass(frozen=True)
class Block:
    """A bit for each block, and codes for the numbers of those that are not zero; without a code the numbers.

    A tensor is seen as ``[outer, run, inner]``: a block is the numbers along the middle axis, neighbours where
    `inner` is 1. Pruning in blocks makes such zeros (Narang, Undersander and Diamos, "Block-Sparse Recurrent Neural
    Networks", 2017).
    """

    code: Code | None

    @property
    def name(self) -> str:
        """See `Encoding`."""
        return f"Block_{self.code.name if self.code else 'raw'}"

    @property
    def doc(self) -> str:
        """See `Encoding`."""
        return "m: which blocks are not zero; c: places in t of their numbers"

    @property
    def inputs(self) -> list[str]:
        """See `Encoding`."""
        return [*_MASK.inputs("m"), *(self.code.inputs("c") if self.code else []), TABLE]

    @property
    def attributes(self) -> list[str]:
        """See `Encoding`."""
        return ["length", "inner", *(["entries"] if self.code else [])]

    def table(self, words: Words) -> np.ndarray | None:
        """See `Encoding`."""
        return words.table if self.code else None

    def reads(self, words: Words) -> int:
        """See `Encoding`."""
        return self.code.depth * len(_stored(words, *_layout_of(words))[1]) if self.code else 0

    def encode(self, words: Words) -> Streams:
        """See `Encoding`."""
        run, inner = _layout_of(words)
        mask, stored = _stored(words, run, inner)
        arrays, attributes = _MASK.encode(mask.astype(np.uint8), "m"), {"length": run, "inner": inner}
        if self.code is None:
            return Streams({**arrays, TABLE: with_zero(stored)}, attributes)
        table = words.table
        assert table is not None
        places = np.searchsorted(table, stored).astype(np.uint8)
        return Streams(
            {**arrays, **self.code.encode(places, "c"), TABLE: table}, {**attributes, "entries": len(places)}
        )

    def decode(self, streams: Streams, count: int) -> np.ndarray:
        """See `Encoding`."""
        run, inner = streams.attributes["length"], streams.attributes["inner"]
        if run < 1 or inner < 1 or count % (run * inner):
            raise ValueError(f"{count} numbers are no blocks of {run} with {inner} between them")
        mask = _MASK.decode(streams.arrays, "m", count // run).astype(bool)
        table = streams.arrays[TABLE]
        if self.code is None:
            stored = table[1:]
        else:
            entries = streams.attributes["entries"]
            stored = look_up(table, self.code.decode(streams.arrays, "c", entries))
        if len(stored) != run * int(mask.sum()):
            raise ValueError(f"{int(mask.sum())} blocks of {run} are there, and {len(stored)} numbers")
        blocks = np.zeros((count // run, run), table.dtype)
        blocks[mask] = stored.reshape(-1, run)
        return np.ascontiguousarray(blocks.reshape(-1, inner, run).transpose(0, 2, 1)).reshape(-1)

    def emit(self, body: Body, shape: str) -> str:
        """See `Encoding`."""
        zero, one = body.constant(np.int32(0)), body.constant(np.int32(1))
        run, inner = body.attribute("length"), body.attribute("inner")
        blocks = body.op("Div", body.op("ReduceProd", shape, keepdims=1), run)
        mask = _MASK.emit(body, "m", blocks)
        number = body.op("Mul", body.op("CumSum", mask, zero), mask)
        layout = body.op("Concat", body.constant(np.array([-1, 1])), inner, axis=0)
        number = body.op("Reshape", number, layout)
        # Of block n, counted from 1, the numbers are those from (n - 1) run + 1 to n run.
        ramp = body.op("CumSum", body.op("Expand", one, run), zero)
        ramp = body.op("Reshape", ramp, body.constant(np.array([-1, 1])))
        length = body.integers(run)
        first = body.op("Sub", body.op("Mul", number, length), length)
        places = body.op("Where", body.op("Greater", number, zero), body.op("Add", first, ramp), zero)
        places = body.op("Reshape", places, body.constant(np.full(1, -1, np.int64)))
        values = TABLE
        if self.code is not None:
            stored = self.code.emit(body, "c", body.attribute("entries"))
            stored = body.op("Concat", body.constant(np.zeros(1, np.int32)), stored, axis=0)
            values = body.op("Gather", TABLE, stored)
        return body.op("Gather", values, places)


def _stored(words: Words, run: int, inner: int) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks are not zero, ``bool[blocks]``, and their numbers one block after the other."""
    blocks = words.flat.reshape(-1, run, inner).transpose(0, 2, 1).reshape(-1, run)
    mask = np.asarray(blocks.any(axis=1))
    return mask, blocks[mask].reshape(-1)


def _layout_of(words: Words) -> tuple[int, int]:
    found = layout(words)
    assert found is not None
    return found


def layout(words: Words) -> tuple[int, int] | None:
    """Length of the blocks and the distance of their numbers that store the fewest; None without blocks."""
    if not 0 < len(words.nonzero) < len(words.flat):
        return None
    best: tuple[float, int, int] | None = None
    for inner in sorted({1, *(math.prod(words.shape[axis:]) for axis in range(1, len(words.shape)))}):
        for run in _RUNS:
            if len(words.flat) % (run * inner):
                continue
            rows = words.flat.reshape(-1, run, inner)
            probe = rows[: max(1, _PROBE // (run * inner))]
            if not _dense(probe) or not _dense(rows):
                continue
            kept = int((rows != 0).any(axis=1).sum())
            # A bit for each block, and for each number of those that are kept about a byte.
            cost = len(words.flat) / run / 8 + kept * run
            if best is None or cost < best[0]:
                best = cost, run, inner
    return None if best is None else best[1:]


def _dense(rows: np.ndarray) -> bool:
    """Whether blocks ``[outer, run, inner]`` that are not all zero have few zeros, and others are all zero."""
    nonzero = rows != 0
    kept = int(nonzero.any(axis=1).sum()) * rows.shape[1]
    return kept < nonzero.size and kept - int(nonzero.sum()) <= _LOOSE * kept


def offers(words: Words, *, prefix: bool) -> Iterator[tuple[Block, int]]:
    """What can store a tensor, and the bytes of its arrays."""
    found = layout(words)
    if found is None:
        return
    mask, stored = _stored(words, *found)
    size = _MASK.nbytes(np.array([len(mask)]))
    yield Block(None), size + (len(stored) + 1) * stored.dtype.itemsize
    if words.table is not None:
        histogram = np.bincount(np.searchsorted(words.table, stored), minlength=len(words.table))
        for code, more in codes.offers(histogram, prefix=prefix):
            yield Block(code), size + more + words.table.nbytes
