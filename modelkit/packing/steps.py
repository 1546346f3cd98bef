"""Steps: a table of floats that are whole multiples of one number takes a byte for each, as uniform quantization has.

A product of two floats is rounded in one way only, so that the very bits come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import onnx

from modelkit.packing.body import Body, Helper

_MOST = 127


def steps_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Whole numbers and what they are multiples of.

    Args:
        table: Numbers ``[n]`` of any type.

    Returns:
        ``int8[n]`` and a step ``[1]`` of the table's type, whose products are the table bit by bit; None where there
        are none, and for other types than float32 and float64.
    """
    if table.dtype not in (np.float32, np.float64) or not table.size:
        return None
    return _steps(table.tobytes(), table.dtype.char)


@lru_cache(maxsize=256)
def _steps(data: bytes, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    table = np.frombuffer(data, kind)
    largest = np.abs(table).max()
    if not np.isfinite(table).all() or largest == 0:
        return None
    for most in range(_MOST, 0, -1):
        middle = largest / table.dtype.type(most)
        # What was rounded twice may be off by one bit.
        for step in (middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)):
            if step == 0:
                continue
            numbers = np.rint(table / step)
            if np.abs(numbers).max() > _MOST:
                continue
            found = numbers.astype(np.int8), np.full(1, step)
            if multiples(*found).tobytes() == data:
                return found
    return None


def multiples(numbers: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The table.

    Raises:
        ValueError: They are no such numbers.
    """
    if numbers.dtype != np.int8 or numbers.ndim != 1 or step.dtype not in (np.float32, np.float64) or step.size != 1:
        raise ValueError(f"{numbers.dtype}{list(numbers.shape)} are no multiples of {step.dtype}{list(step.shape)}")
    return np.asarray(numbers.astype(step.dtype) * step.reshape(-1))


def _write() -> tuple[Body, Sequence[str], Sequence[str]]:
    body = Body(["k", "s"])
    return body, [body.op("Mul", body.op("CastLike", "k", "s"), "s")], []


STEPS = Helper("Steps", _write, "a table: k times s")


def steps_function(opset: int) -> onnx.FunctionProto:
    """The ONNX function that rebuilds a table."""
    return STEPS.functions(opset)[-1]
