"""Reads the npy format without trusting it: headers are checked against the bytes there before allocating.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Arrays of Python objects are
pickles, which run code when loaded; they are refused.
"""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np

from modelkit.errors import DataError, UnsafeError

_MAX_HEADER = 10_000
_SKIP_BYTES = 1 << 20
# What reading a damaged file or zip member can raise.
READ_ERRORS = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class Array(ABC):
    """An array somewhere: dtype and shape at once, values as they are read.

    Attributes:
        dtype: Element type.
        shape: Dimensions.
    """

    dtype: np.dtype
    shape: tuple[int, ...]

    @abstractmethod
    def rows(self) -> ArrayReader:
        """Open it for reading along axis 0."""

    @abstractmethod
    def load(self) -> np.ndarray:
        """Return all of it."""


class ArrayReader(ABC):
    """A position in an array's rows."""

    @abstractmethod
    def read(self, count: int) -> np.ndarray:
        """Return the next `count` rows, ``[count, ...]``."""

    @abstractmethod
    def skip(self, count: int) -> None:
        """Move on by `count` rows."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class StoredArray(Array):
    """An array in npy format in a file or in a member of a zip.

    Attributes:
        dtype: Element type, in the file's byte order.
        shape: Dimensions, all at least 0.
        fortran: True where the first index varies fastest; such an array is held in memory to be read by
            rows.
        offset: Where the first element is.
        where: What to call it in errors.
        opener: Opens the npy data at its start.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    offset: int
    where: str
    opener: Callable[[], IO[bytes]]

    def rows(self) -> ArrayReader:
        """Open it for reading along axis 0."""
        if self.fortran:
            return HeldReader(self.load())
        return _StoredReader(self)

    def load(self) -> np.ndarray:
        """Return all of it.

        Raises:
            DataError: It cannot be read.
        """
        if self.fortran:
            turned = StoredArray(self.dtype, self.shape[::-1], False, self.offset, self.where, self.opener).load()
            return turned.T
        if not self.shape:
            flat = StoredArray(self.dtype, (1,), False, self.offset, self.where, self.opener)
            return flat.load().reshape(())
        reader = _StoredReader(self)
        try:
            return reader.read(self.shape[0])
        finally:
            reader.close()


class _StoredReader(ArrayReader):
    def __init__(self, array: StoredArray) -> None:
        self._array = array
        self._row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
        try:
            self._file = array.opener()
        except READ_ERRORS as error:
            raise DataError(f"{array.where} cannot be read: {one_line(error)}") from error
        self._pull(array.offset)

    def read(self, count: int) -> np.ndarray:
        data = self._pull(count * self._row_bytes)
        return np.frombuffer(data, self._array.dtype).reshape(count, *self._array.shape[1:])

    def skip(self, count: int) -> None:
        left = count * self._row_bytes
        if isinstance(self._file, zipfile.ZipExtFile):
            # A zip member is decompressed on the way anyway; its own seek() would allocate as much.
            while left:
                left -= len(self._pull(min(left, _SKIP_BYTES)))
        elif left:
            self._file.seek(left, 1)

    def _pull(self, count: int) -> bytearray:
        data = bytearray(count)
        view, done = memoryview(data), 0
        try:
            while done < count:
                got = self._file.readinto(view[done:])  # type: ignore[attr-defined]
                if not got:
                    break
                done += got
        except READ_ERRORS as error:
            raise DataError(f"{self._array.where} is damaged: {one_line(error)}", hint="save it again") from error
        if done < count:
            raise DataError(f"{self._array.where} is damaged: it ends too early", hint="save it again")
        return data

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class HeldArray(Array):
    """An array in memory.

    Attributes:
        values: The array.
    """

    values: np.ndarray

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        """Element type."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Dimensions."""
        return self.values.shape

    def rows(self) -> ArrayReader:
        """Open it for reading along axis 0."""
        return HeldReader(self.values)

    def load(self) -> np.ndarray:
        """Return all of it."""
        return self.values


class HeldReader(ArrayReader):
    """A position in an array in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._position = 0

    def read(self, count: int) -> np.ndarray:
        """Return the next `count` rows (a view)."""
        rows = self._values[self._position : self._position + count]
        self._position += count
        return rows

    def skip(self, count: int) -> None:
        """Move on by `count` rows."""
        self._position += count

    def close(self) -> None:
        """Do nothing: there is no file."""


def stored_array(opener: Callable[[], IO[bytes]], size: int, where: str) -> StoredArray:
    """Read and check an npy header.

    Args:
        opener: Opens the npy data at its start.
        size: Bytes of the npy data, header included.
        where: What to call it in errors.

    Raises:
        UnsafeError: The array holds Python objects.
        DataError: Not an npy header, or one that does not fit `size`.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with opener() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file)
            if version not in readers:
                raise ValueError(f"npy version {version[0]}.{version[1]}, only 1.0 and 2.0 hold plain arrays")
            shape, fortran, dtype = readers[version](file, max_header_size=_MAX_HEADER)
            offset = file.tell()
    except (*READ_ERRORS, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError) as error:
        raise DataError(
            f"{where} is not a readable npy array: {one_line(error)}", hint="save it again with numpy.save"
        ) from error
    if dtype.hasobject:
        raise UnsafeError(
            f"{where} would unpickle: it holds Python objects (dtype {dtype})",
            hint="save it as a plain array, such as array.astype(numpy.float32) or array.astype(str)",
        )
    if any(isinstance(d, bool) or d < 0 for d in shape):
        raise DataError(f"{where} has the impossible shape {list(shape)}")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != size - offset:
        raise DataError(
            f"{where} is damaged: its header promises {wanted} bytes ({dtype} {list(shape)}), "
            f"{size - offset} are there",
            hint="the file was cut off or its header was changed; save it again",
        )
    return StoredArray(dtype, shape, fortran, offset, where, opener)


def one_line(error: BaseException) -> str:
    """Return what an exception says, in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
