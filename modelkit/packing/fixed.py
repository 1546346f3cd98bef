"""Codes of 1 to 8 bits each: in planes of 4, 2 and 1 bits, which standard operators take apart quickly.

A code of 7 bits is one of 4, one of 2 and one of 1 bit, each in a plane of its own. A plane of `width` bits holds in
byte ``j`` the parts of the codes ``j``, ``j + stride``, ``j + 2 * stride`` and so on, `stride` being its number of
bytes: taken apart, each part is a run of the result, so that nothing needs to be interleaved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from modelkit.packing.body import Body, Helper

_WIDTHS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Fixed:
    """Codes that all have `bits` bits, 1 to 8."""

    bits: int

    @property
    def name(self) -> str:
        """See `Code`."""
        return str(self.bits)

    @property
    def depth(self) -> int:
        """See `Code`."""
        return 0

    @property
    def widths(self) -> list[int]:
        """Widths of the planes, the highest bits first."""
        return [width for width in _WIDTHS if self.bits & width]

    def inputs(self, prefix: str) -> list[str]:
        """See `Code`."""
        return [f"{prefix}{width}" for width in self.widths]

    def nbytes(self, histogram: np.ndarray) -> int:
        """See `Code`."""
        count = int(histogram.sum())
        return sum(_stride(count, width) for width in self.widths)

    def encode(self, codes: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
        """See `Code`."""
        planes, left = {}, self.bits
        for width, name in zip(self.widths, self.inputs(prefix), strict=True):
            left -= width
            stride = _stride(len(codes), width)
            runs = np.zeros((8 // width, stride), np.uint8)
            runs.reshape(-1)[: len(codes)] = (codes >> left) & ((1 << width) - 1)
            planes[name] = np.bitwise_or.reduce(runs << _shifts(width), axis=0).astype(np.uint8)
        return planes

    def decode(self, arrays: Mapping[str, np.ndarray], prefix: str, count: int) -> np.ndarray:
        """See `Code`."""
        planes = [arrays[name] for name in self.inputs(prefix)]
        for width, plane in zip(self.widths, planes, strict=True):
            if plane.dtype != np.uint8 or plane.shape != (_stride(count, width),):
                raise ValueError(f"{count} codes cannot be in a plane of {plane.dtype}{list(plane.shape)}")
        codes, left = np.zeros(count, np.uint8), self.bits
        for width, plane in zip(self.widths, planes, strict=True):
            left -= width
            parts = ((plane[None] >> _shifts(width)) & np.uint8((1 << width) - 1)).reshape(-1)[:count]
            codes |= parts << np.uint8(left)
        return codes

    def emit(self, body: Body, prefix: str, count: str) -> str:
        """See `Code`."""
        whole, left = "", self.bits
        for width, name in zip(self.widths, self.inputs(prefix), strict=True):
            left -= width
            part = name if width == 8 else bits_of(body, name, width, count)
            if left:
                part = body.op("BitShift", part, body.constant(np.uint8(left)), direction="LEFT")
            whole = body.op("BitwiseOr", whole, part) if whole else part
        return body.integers(whole)


def _stride(count: int, width: int) -> int:
    return -(-count * width // 8)


def _shifts(width: int) -> np.ndarray:
    # In a column, so that each gives a row of the result: all bytes of a plane moved alike.
    return np.arange(0, 8, width, dtype=np.uint8)[:, None]


def bits_of(body: Body, plane: str, width: int, count: str) -> str:
    """The parts of `width` bits that a plane holds, the first `count` of them, ``uint8[count]``."""
    return body.call(_BITS, plane, count, s=_shifts(width).reshape(-1).tolist(), m=[(1 << width) - 1])[0]


def _write_bits() -> tuple[Body, Sequence[str], Sequence[str]]:
    body = Body(["p", "n"])
    byte, column = onnx.TensorProto.UINT8, body.constant(np.array([-1, 1]))
    shifts = body.op("Reshape", body.op("Cast", body.attribute("s"), to=byte), column)
    moved = body.op("BitShift", "p", shifts, direction="RIGHT")
    parts = body.op("BitwiseAnd", moved, body.op("Cast", body.attribute("m"), to=byte))
    flat = body.op("Reshape", parts, body.constant(np.full(1, -1, np.int64)))
    return body, [body.op("Slice", flat, body.constant(np.zeros(1, np.int64)), "n")], ["s", "m"]


_BITS = Helper("Bits", _write_bits, "the first n parts of the bytes p")
