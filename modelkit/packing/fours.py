"""Four bits: numbers of 4-bit types are packed as bytes, and a function turns these into the type again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from modelkit.packing.body import Body, Helper


def _write(kind: int) -> tuple[Body, Sequence[str], Sequence[str]]:
    body = Body(["x"])
    return body, [body.op("Cast", "x", to=kind)], []


_FUNCTIONS: dict[int, Helper] = {
    onnx.TensorProto.INT4: Helper("Int4", partial(_write, onnx.TensorProto.INT4), "bytes as numbers of 4 bits"),
    onnx.TensorProto.UINT4: Helper("Uint4", partial(_write, onnx.TensorProto.UINT4), "bytes as numbers of 4 bits"),
}

KINDS: dict[str, int] = {helper.name: kind for kind, helper in _FUNCTIONS.items()}
"""Types by the names of the functions that give them."""

_NUMPY: dict[int, tuple[np.dtype[Any], np.dtype[Any]]] = {
    onnx.TensorProto.INT4: (np.dtype(ml_dtypes.int4), np.dtype(np.int8)),
    onnx.TensorProto.UINT4: (np.dtype(ml_dtypes.uint4), np.dtype(np.uint8)),
}


def fours_name(kind: int) -> str | None:
    """Name of the function that gives an ONNX type; None where it has other than 4 bits."""
    return _FUNCTIONS[kind].name if kind in _FUNCTIONS else None


def fours_function(name: str, opset: int) -> onnx.FunctionProto:
    """The ONNX function of a name in `KINDS`."""
    return _FUNCTIONS[KINDS[name]].functions(opset)[-1]


def widened(array: np.ndarray, kind: int) -> np.ndarray:
    """Numbers of a 4-bit type as bytes of the same sign."""
    return array.astype(_NUMPY[kind][1])


def narrowed(array: np.ndarray, kind: int) -> np.ndarray:
    """Bytes as numbers of a 4-bit type.

    Raises:
        ValueError: A number needs more bits.
    """
    found = array.view(_NUMPY[kind][1]).astype(_NUMPY[kind][0])
    if not np.array_equal(widened(found, kind), array.view(_NUMPY[kind][1])):
        raise ValueError("a number has more than 4 bits")
    return found
