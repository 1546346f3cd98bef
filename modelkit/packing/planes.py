"""Codes of 1 to 8 bits in whole bytes: as planes of 4, 2 and 1 bits, which standard operators take apart quickly.

A code of 7 bits is one of 4, one of 2 and one of 1 bit, each in a plane of its own. A plane of `width` bits holds in
byte ``j`` the parts of the codes ``j``, ``j + stride``, ``j + 2 * stride`` and so on, `stride` being its number of
bytes: taken apart, each part is a run of the result, so that nothing needs to be interleaved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelkit.packing.body import Body

_WIDTHS = (8, 4, 2, 1)


def widths(bits: int) -> list[int]:
    """Widths of the planes of a code, the highest bits first."""
    return [width for width in _WIDTHS if bits & width]


def nbytes(count: int, bits: int) -> int:
    """Bytes that the planes of so many codes take together."""
    return sum(_stride(count, width) for width in widths(bits))


def _stride(count: int, width: int) -> int:
    return -(-count * width // 8)


def pack(codes: np.ndarray, bits: int) -> list[np.ndarray]:
    """Store codes.

    Args:
        codes: ``uint8[count]``, each below ``2 ** bits``.
        bits: 1 to 8.

    Returns:
        One plane ``uint8[stride]`` for each width.
    """
    planes, left = [], bits
    for width in widths(bits):
        left -= width
        parts = (codes >> left) & ((1 << width) - 1)
        stride = _stride(len(codes), width)
        runs = np.zeros((8 // width, stride), np.uint8)
        runs.reshape(-1)[: len(codes)] = parts
        shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
        planes.append(np.bitwise_or.reduce(runs << shifts, axis=0).astype(np.uint8))
    return planes


def unpack(planes: Sequence[np.ndarray], bits: int, count: int) -> np.ndarray:
    """Return the codes of `pack`, ``uint8[count]``.

    Raises:
        ValueError: A plane has another length than so many codes need.
    """
    codes, left = np.zeros(count, np.uint8), bits
    for width, plane in zip(widths(bits), planes, strict=True):
        if plane.dtype != np.uint8 or plane.shape != (_stride(count, width),):
            raise ValueError(f"a plane of {count} codes is {plane.dtype}{list(plane.shape)}")
        left -= width
        shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
        parts = ((plane[None] >> shifts) & np.uint8((1 << width) - 1)).reshape(-1)[:count]
        codes |= parts << np.uint8(left)
    return codes


def names(prefix: str, bits: int) -> list[str]:
    """Names of the planes: ``codes4``, ``codes2``."""
    return [f"{prefix}{width}" for width in widths(bits)]


def emit(body: Body, prefix: str, bits: int, count: str) -> str:
    """Take planes apart in a function.

    Args:
        body: The function.
        prefix: What `names` was given.
        bits: Of a code.
        count: The number of codes, ``int64[1]``.

    Returns:
        The codes, ``uint8[count]``.
    """
    whole, left = "", bits
    for width in widths(bits):
        left -= width
        part = _runs(body, f"{prefix}{width}", width)
        if width < 8:
            part = body.op("Slice", part, body.constant(np.zeros(1, np.int64)), count)
        if left:
            part = body.op("BitShift", part, body.constant(np.uint8(left)), direction="LEFT")
        whole = body.op("BitwiseOr", whole, part) if whole else part
    return whole


def _runs(body: Body, plane: str, width: int) -> str:
    if width == 8:
        return plane
    # Shifts stand in a column, so that each gives a row of the result: all of a plane's bytes moved alike.
    moved = body.op("BitShift", plane, body.constant(np.arange(0, 8, width, dtype=np.uint8)[:, None]), direction="RIGHT")
    parts = body.op("BitwiseAnd", moved, body.constant(np.uint8((1 << width) - 1)))
    return body.op("Reshape", parts, body.constant(np.full(1, -1, np.int64)))
