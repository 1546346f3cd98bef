"""Tensors as they lie in an ONNX file or in its external data files, read in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.errors import ModelError, UnsafeError
from modelkit.files import contained

if TYPE_CHECKING:
    import onnx

_PIECE = 1 << 20  # numbers handed out at a time

# Numbers smaller than a byte: their bits, and whether they are in two's complement.
_PACKED = {
    "INT4": (4, True),
    "UINT4": (4, False),
    "INT2": (2, True),
    "UINT2": (2, False),
    "FLOAT4E2M1": (4, False),
}


class StoredTensor:
    """A tensor in the file or in an external data file, read in pieces.

    Args:
        proto: The tensor as it stands in the file.
        folder: Folder of the model, for external data.
        name: Its name, for messages.

    Raises:
        ModelError: The type is unknown, bytes do not fit the shape, or external data is missing or too short.
        UnsafeError: External data points out of the folder.
    """

    def __init__(self, proto: onnx.TensorProto, folder: Path, name: str) -> None:
        import onnx

        self.proto = proto
        self.name = name
        try:
            self.type = onnx.TensorProto.DataType.Name(proto.data_type)
        except ValueError as error:
            raise ModelError(f"'{name}' is of the unknown type {proto.data_type}") from error
        self.shape = tuple(proto.dims)
        self.count = math.prod(self.shape)
        self.file: Path | None = None
        self._offset = 0
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            self._locate(folder, name)
        elif self._is_raw() and len(proto.raw_data) != self._stored_bytes():
            raise ModelError(
                f"'{name}' holds {len(proto.raw_data)} bytes; its shape {list(self.shape)} needs"
                f" {self._stored_bytes()}"
            )

    def _is_raw(self) -> bool:
        """Whether the file holds it as bytes of a layout that is known here."""
        return self.proto.HasField("raw_data") and self.type != "STRING" and "FLOAT6" not in self.type

    def _locate(self, folder: Path, name: str) -> None:
        entries = {entry.key: entry.value for entry in self.proto.external_data}
        location = entries.get("location", "")
        try:
            file = contained(folder, location)
        except UnsafeError as error:
            raise UnsafeError(
                f"the external data of '{name}' is at '{location}', outside the model's folder",
                "external data must lie in the folder of the model or below",
            ) from error
        if not file.is_file():
            raise ModelError(f"the external data file '{location}' of '{name}' is missing")
        try:
            self._offset = int(entries.get("offset", "0"))
        except ValueError:
            self._offset = -1
        if self._offset < 0 or self._offset + self._stored_bytes() > file.stat().st_size:
            raise ModelError(f"the external data file '{location}' is too short for '{name}'")
        self.file = file

    def _stored_bytes(self) -> int:
        if self.type in _PACKED:
            return -(-self.count * _PACKED[self.type][0] // 8)
        return self.count * _dtype(self.proto.data_type).itemsize

    def pieces(self) -> Iterator[np.ndarray]:
        """Its numbers in order, flat, at most a million at a time; external data is not held in memory."""
        if self.file is None and not self._is_raw():
            yield from self._typed_pieces()
            return
        packed = _PACKED.get(self.type)
        dtype = np.dtype(np.uint8) if packed else _dtype(self.proto.data_type)
        per_byte = 8 // packed[0] if packed else 1
        raw = b"" if self.file is not None else self.proto.raw_data
        for start in range(0, self.count, _PIECE):
            length = min(_PIECE, self.count - start)
            place = start // per_byte * dtype.itemsize
            if self.file is not None:
                piece = np.fromfile(self.file, dtype, -(-length // per_byte), offset=self._offset + place)
            else:
                piece = np.frombuffer(raw, dtype, -(-length // per_byte), place)
            if packed:
                piece = unpack(piece, *packed)[:length]
                # A float of 4 bits has its sign in the highest, and minus zero is zero.
                yield piece & 7 if self.type == "FLOAT4E2M1" else piece
            else:
                yield _comparable(piece)

    def _typed_pieces(self) -> Iterator[np.ndarray]:
        """The numbers of a tensor that the file holds in typed fields."""
        from onnx import numpy_helper

        try:
            flat = numpy_helper.to_array(self.proto).reshape(-1)
        except ValueError as error:
            raise ModelError(f"'{self.name}' does not hold as many numbers as its shape says") from error
        for start in range(0, flat.size, _PIECE):
            yield _comparable(flat[start : start + _PIECE])


def _comparable(numbers: np.ndarray) -> np.ndarray:
    """Numbers in a type that numpy itself can compare; ml_dtypes' become float32."""
    return numbers if numbers.dtype.kind in "fiub" else numbers.astype(np.float32)


def unpack(data: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Unpack numbers of 2, 4 or 8 bits, the lowest bits of a byte first, as ONNX stores them.

    Args:
        data: Bytes, uint8 [n].
        bits: 2, 4 or 8.
        signed: Whether the numbers are in two's complement.

    Returns:
        int16 [n * 8 / bits].
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = ((data[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1).astype(np.int16)
    if signed:
        numbers[numbers >= 1 << (bits - 1)] -= 1 << bits
    return numbers


def _dtype(data_type: int) -> np.dtype:
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
