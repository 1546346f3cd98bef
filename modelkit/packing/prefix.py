"""Prefix codes (Huffman): frequent codes take fewer bits, and standard operators still read all of them at once.

A Huffman stream is read bit by bit, each code beginning where the last one ended, which no graph of operators does.
So the bits are sorted by depth: first the first `least` bits of every code, then the next bit of each code that is
longer, then the next one of those that are longer still. How many numbers are left at a depth, and which, follows
from the bits before, so that each depth is a running sum, a look-up and a comparison on all numbers at once. The
stream has the same length as the usual one.

Codes are canonical (Schwartz and Kallick, 1964): of one length they are consecutive numbers, shorter ones come first;
their lengths come from package-merge (Larmore and Hirschberg, 1990), which is Huffman's code where none is too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge

import numpy as np
import onnx

from modelkit.packing.body import Body
from modelkit.packing.fixed import Fixed, unpacked_bits

LEVEL = "Level"
"""Name of the function that reads the next bit of every code that has one."""


@dataclass(frozen=True)
class Prefix:
    """Codes of `least` to `most` bits."""

    least: int
    most: int

    @property
    def name(self) -> str:
        """See `Code`."""
        return f"p{self.least}to{self.most}"

    @property
    def depth(self) -> int:
        """See `Code`."""
        return self.most - self.least

    @property
    def _first(self) -> Fixed:
        return Fixed(self.least)

    def inputs(self, prefix: str) -> list[str]:
        """See `Code`."""
        return [*self._first.inputs(prefix), f"{prefix}_bits", f"{prefix}_steps", f"{prefix}_order"]

    def nbytes(self, histogram: np.ndarray) -> int:
        """See `Code`."""
        lengths, order = self._lengths(histogram)
        rest = int(((lengths - self.least) * histogram[order]).sum())
        return self._first.nbytes(histogram) + max(1, -(-rest // 8)) + self._steps_bytes + len(order)

    @property
    def _steps_bytes(self) -> int:
        return 12 * (self.most - self.least + 1)

    def _lengths(self, histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Code lengths, ascending, and which code has each."""
        present = np.flatnonzero(histogram)
        # Shorter codes than `least` would save nothing: these bits are read in any case.
        lengths = np.maximum(self.least, code_lengths(tuple(histogram[present].tolist()), self.most))
        by_length = np.argsort(lengths, kind="stable")
        return lengths[by_length], present[by_length]

    def encode(self, codes: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
        """See `Code`."""
        lengths, order = self._lengths(np.bincount(codes, minlength=1))
        numbers, steps = self._canonical(lengths)
        place = np.zeros(256, np.int64)
        place[order] = np.arange(len(order))
        places = place[codes]
        number, length = numbers[places], lengths[places]
        bits, base = [], 0
        for row, depth in enumerate(range(self.least + 1, self.most + 1), 1):
            longer = length >= depth
            bits.append((number[longer] >> (length[longer] - depth)) & 1)
            steps[row, 0] = base - 1
            base += len(bits[-1])
        stream = np.concatenate([*bits, np.zeros(0, np.int64)]).astype(np.uint8)
        arrays = self._first.encode((number >> (length - self.least)).astype(np.uint8), prefix)
        # An empty stream has nothing to look up in.
        packed = Fixed(1).encode(stream if len(stream) else np.zeros(1, np.uint8), "b")["b1"]
        arrays |= {f"{prefix}_bits": packed, f"{prefix}_steps": steps, f"{prefix}_order": order.astype(np.uint8)}
        return arrays

    def _canonical(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Code numbers for lengths in ascending order, and for each depth where its codes end and their shift."""
        numbers = np.zeros(len(lengths), np.int64)
        steps = np.zeros((self.most - self.least + 1, 3), np.int32)
        number = place = 0
        for row, depth in enumerate(range(self.least, self.most + 1)):
            number = number << 1 if row else 0
            many = int((lengths == depth).sum())
            numbers[place : place + many] = number + np.arange(many)
            steps[row, 1:] = number + many, place - number
            number, place = number + many, place + many
        return numbers, steps

    def decode(self, arrays: Mapping[str, np.ndarray], prefix: str, count: int) -> np.ndarray:
        """See `Code`."""
        steps, order = arrays[f"{prefix}_steps"].view(np.int32), arrays[f"{prefix}_order"]
        packed = arrays[f"{prefix}_bits"]
        if steps.shape != (self.most - self.least + 1, 3) or packed.dtype != np.uint8 or packed.ndim != 1:
            raise ValueError("the lengths of the codes or their bits have another form")
        bits = Fixed(1).decode({"b1": packed}, "b", 8 * len(packed))
        code = self._first.decode(arrays, prefix, count).astype(np.int64)
        alive = np.ones(count, bool)
        for row, (base, limit, shift) in enumerate(steps.astype(np.int64)):
            if row:
                where = base + np.cumsum(alive)[alive]
                if where.size and (where.min() < 0 or where.max() >= len(bits)):
                    raise ValueError("the codes are longer than their bits")
                code[alive] = 2 * code[alive] + bits[where]
            done = alive & (code < limit)
            code[done] += shift
            alive &= ~done
        if alive.any() or (count and (code.min() < 0 or code.max() >= len(order))):
            raise ValueError("a code has no meaning")
        return np.asarray(order[code])

    def emit(self, body: Body, prefix: str, count: str) -> str:
        """See `Code`."""
        bits = unpacked_bits(body, f"{prefix}_bits")
        steps = f"{prefix}_steps"
        code = self._first.emit(body, prefix, count)
        first = body.op("Gather", steps, body.constant(np.zeros(1, np.int64)), axis=0)
        _, limit, shift = _columns(body, first)
        alive = body.op("GreaterOrEqual", code, limit)
        code = body.op("Where", alive, code, body.op("Add", code, shift))
        for row in range(1, self.most - self.least + 1):
            code, alive = body.call(LEVEL, code, alive, bits, steps, outputs=2, row=[row])
        return body.integers(body.op("Gather", f"{prefix}_order", code, axis=0))


def level(opset: int) -> onnx.FunctionProto:
    """The function that reads one more bit of each code that is not complete."""
    body = Body(["code", "alive", "bits", "steps"])
    step = body.op("Gather", "steps", body.attribute("row"), axis=0)
    base, limit, shift = _columns(body, step)
    left = body.integers("alive")
    where = body.op("Add", body.op("CumSum", left, body.constant(np.int32(0))), base)
    bit = body.integers(body.op("Gather", "bits", where, axis=0))
    longer = body.op("Add", body.op("Add", "code", "code"), bit)
    more = body.op("GreaterOrEqual", longer, limit)
    ended = body.op("Where", more, longer, body.op("Add", longer, shift))
    return body.function(
        LEVEL, opset, [body.op("Where", "alive", ended, "code"), body.op("And", "alive", more)], ["row"]
    )


def _columns(body: Body, step: str) -> list[str]:
    """Base, limit and shift of a step ``[1, 3]``, each ``[1]``."""
    return [body.op("Gather", step, body.constant(np.int64(column)), axis=1) for column in range(3)]


@lru_cache(maxsize=256)
def code_lengths(weights: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Lengths of a code of least total length, by package-merge.

    Args:
        weights: How often each symbol occurs, at least once; at most ``2 ** most`` of them.
        most: Longer codes are not allowed.
    """
    if len(weights) == 1:
        return (1,)
    leaves = sorted((weight, (index,)) for index, weight in enumerate(weights))
    level_: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(most):
        pairs = [
            (level_[i][0] + level_[i + 1][0], level_[i][1] + level_[i + 1][1]) for i in range(0, len(level_) - 1, 2)
        ]
        level_ = list(merge(leaves, pairs))
    lengths = [0] * len(weights)
    for _, symbols in level_[: 2 * len(weights) - 2]:
        for symbol in symbols:
            lengths[symbol] += 1
    return tuple(lengths)
