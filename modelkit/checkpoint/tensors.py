"""A tensor of a checkpoint before anything is allocated for it: where its numbers lie, and whether that can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from modelkit.errors import ModelError, UnsafeError
from modelkit.files import shown

_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")

# By the names that torch gives them; numpy has no quantized types.
DTYPES: dict[str, np.dtype] = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128", "bool")},
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _FLOAT8},
}


@dataclass(frozen=True)
class Storage:
    """A piece of a file that one or more tensors look at.

    Attributes:
        key: Its name in the file.
        dtype: Name of the type that its size counts in; "byte" where it counts bytes.
        count: How many numbers of that type it says to hold.
    """

    key: str
    dtype: str
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes that it says to have."""
        return self.count * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A tensor as a file describes it; ``storage`` says where its numbers are.

    Attributes:
        storage: The piece of the file.
        dtype: Name of its element type.
        offset: First number, counted in elements.
        shape: Sizes of its axes.
        strides: Distance of neighbours along each axis, in elements.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return self.size * DTYPES[self.dtype].itemsize


def check(ref: TensorRef, name: str) -> None:
    """Refuse a tensor that does not fit into its storage, or that shows the same number in two places.

    Such a tensor takes a few bytes in the file and any amount in memory.

    Raises:
        UnsafeError: The element at some index lies outside the storage, or strides repeat elements.
    """
    where = f"the tensor '{shown(name)[:200]}'"
    if len(ref.shape) != len(ref.strides) or ref.offset < 0 or min((*ref.shape, *ref.strides, 0)) < 0:
        raise UnsafeError(f"{where} has a shape, strides or an offset that cannot be")
    if not ref.size:
        return
    last = ref.offset + sum((n - 1) * step for n, step in zip(ref.shape, ref.strides, strict=True))
    if (last + 1) * DTYPES[ref.dtype].itemsize > ref.storage.nbytes:
        raise UnsafeError(
            f"{where} of shape {_shape(ref.shape)} reaches beyond the {ref.storage.nbytes} bytes stored for it"
        )
    # An axis of one element has no neighbours: its stride means nothing.
    axes = sorted((step, n) for n, step in zip(ref.shape, ref.strides, strict=True) if n > 1)
    reach = 0
    for step, n in axes:
        if step <= reach:
            raise UnsafeError(
                f"{where} of shape {_shape(ref.shape)} repeats its numbers (strides {_shape(ref.strides)}):"
                " it would take more memory than the file has",
                "save it again with .contiguous()",
            )
        reach += (n - 1) * step


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in sizes[:12])


def read(path: Path, ref: TensorRef, start: int) -> np.ndarray:
    """Read a tensor's numbers, mapped rather than loaded.

    Args:
        path: The file.
        ref: The tensor; checked.
        start: Where its storage starts in the file.

    Raises:
        ModelError: The file is shorter than it says.
    """
    dtype = DTYPES[ref.dtype]
    if not ref.size:
        return np.zeros(ref.shape, dtype)
    first = start + ref.offset * dtype.itemsize
    span = 1 + sum((n - 1) * step for n, step in zip(ref.shape, ref.strides, strict=True))
    try:
        flat = np.memmap(path, dtype=np.uint8, mode="r", offset=first, shape=(span * dtype.itemsize,))
    except (ValueError, OSError) as error:
        raise ModelError(f"'{shown(path.name)}' is truncated: its numbers are not all there") from error
    steps = tuple(step * dtype.itemsize for step in ref.strides)
    return np.lib.stride_tricks.as_strided(flat.view(dtype), ref.shape, steps, writeable=False)
