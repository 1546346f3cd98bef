"""ONNX element types in torch: which type carries which, and how numbers come to fit it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from modelkit.train.ops.op import Unsupported

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

_CARRIERS = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    # torch has hardly any arithmetic for these: they are carried in int64 and wrapped where they leave.
    ir.DataType.UINT16: torch.int64,
    ir.DataType.UINT32: torch.int64,
    ir.DataType.UINT64: torch.int64,
    # Storage types: carried as numbers that they can hold.
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT2: torch.int8,
    ir.DataType.UINT2: torch.uint8,
    ir.DataType.FLOAT8E4M3FN: torch.float32,
    ir.DataType.FLOAT8E4M3FNUZ: torch.float32,
    ir.DataType.FLOAT8E5M2: torch.float32,
    ir.DataType.FLOAT8E5M2FNUZ: torch.float32,
    ir.DataType.FLOAT8E8M0: torch.float32,
    ir.DataType.FLOAT4E2M1: torch.float32,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
}
_WRAPPED = {
    ir.DataType.UINT16: (torch.uint16, np.uint16),
    ir.DataType.UINT32: (torch.uint32, np.uint32),
    ir.DataType.UINT64: (torch.uint64, np.uint64),
}
NARROW = {
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT2: (-2, 1),
    ir.DataType.UINT2: (0, 3),
}
"""Lowest and highest of the integer types that torch lacks."""

# Floats that only exist to be stored, with the largest number of each.
_STORED = {
    ir.DataType.FLOAT8E4M3FN: 448.0,
    ir.DataType.FLOAT8E4M3FNUZ: 240.0,
    ir.DataType.FLOAT8E5M2: 57344.0,
    ir.DataType.FLOAT8E5M2FNUZ: 57344.0,
    ir.DataType.FLOAT8E8M0: 2.0**127,
    ir.DataType.FLOAT4E2M1: 6.0,
}


def carrier(dtype: ir.DataType, widen: bool) -> torch.dtype:
    """Return the torch type that carries an ONNX type.

    Args:
        dtype: The ONNX type.
        widen: Whether float16 and bfloat16 are carried, and so computed, in float32.

    Raises:
        Unsupported: There is none (strings).
    """
    if widen and dtype in HALVES:
        return torch.float32
    if dtype not in _CARRIERS:
        raise Unsupported(f"the type {dtype.name.lower()} cannot be computed with")
    return _CARRIERS[dtype]


def tensor_of(array: np.ndarray, dtype: ir.DataType, widen: bool) -> Tensor:
    """Copy a stored tensor's numbers into the torch type that carries them."""
    kind = carrier(dtype, widen)
    if dtype is ir.DataType.UINT64:
        return torch.from_numpy(array.view(np.int64).copy())
    if dtype is ir.DataType.BFLOAT16:
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16).copy()).view(torch.bfloat16).to(kind)
    if not issubclass(array.dtype.type, np.number | np.bool_):  # one of ml_dtypes' own
        array = array.astype(np.float32)
    # copy(): torch may write to what it holds, a mapped file must not change.
    return torch.from_numpy(np.array(array, order="C", copy=True)).to(kind).reshape(array.shape)


def fit(x: Tensor, dtype: ir.DataType, widen: bool, saturate: bool = True, rounding: str = "up") -> Tensor:
    """Convert numbers to a type as ONNX ``Cast`` does.

    Args:
        x: Any tensor.
        dtype: The type wanted.
        widen: See ``carrier``.
        saturate: For the types of 8-bit floats, whether what is out of range becomes the largest number.
        rounding: To which power of two FLOAT8E8M0 rounds: "up", "down" or "nearest".
    """
    kind = carrier(dtype, widen)
    if dtype in _STORED:
        if dtype is ir.DataType.FLOAT8E8M0 and rounding != "nearest":
            power = torch.log2(x.to(torch.float32))
            x = torch.exp2(power.ceil() if rounding == "up" else power.floor()).clamp(min=2.0**-127)
        return _round_to(x, dtype, saturate)
    if dtype in NARROW:
        low, high = NARROW[dtype]
        return ((x.to(torch.int64) - low) % (high - low + 1) + low).to(kind)
    if dtype in _WRAPPED and x.dtype != torch.bool:
        if x.dtype.is_floating_point:
            return torch.trunc(x).to(torch.int64)
        return x.to(torch.int64) if dtype is ir.DataType.UINT64 else x.to(torch.int64) % (1 << dtype.bitwidth)
    return x.to(kind)


def _round_to(x: Tensor, dtype: ir.DataType, saturate: bool) -> Tensor:
    """Round to what a storage type can hold; numpy's extension types do it, so there is no gradient."""
    numbers = x.detach().to(torch.float32).cpu()
    if saturate:
        largest = _STORED[dtype]
        numbers = torch.where(numbers.isnan(), numbers, numbers.clamp(-largest, largest))
    with np.errstate(over="ignore"):
        rounded = numbers.numpy().astype(dtype.numpy()).astype(np.float32)
    return torch.from_numpy(rounded).to(x.device)


def leave(x: Tensor, dtype: ir.DataType) -> Tensor:
    """Turn what carries an unsigned type into that type, where it leaves the graph."""
    return x.to(_WRAPPED[dtype][0]) if dtype in _WRAPPED else x
