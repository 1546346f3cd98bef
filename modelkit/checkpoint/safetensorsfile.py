"""Safetensors files: read through their library's own checks, written with every byte that did not change."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.checkpoint import tensors
from modelkit.checkpoint.tensors import Storage, TensorRef
from modelkit.errors import ModelError
from modelkit.files import shown

_TYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "C64": "complex64"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"},
}
_NAMES = {name: short for short, name in _TYPES.items()}
_LARGEST_HEADER = 100_000_000


@dataclass
class SafetensorsFile:
    """A safetensors file, nothing of it loaded.

    Attributes:
        path: The file.
        tree: Its tensors by name, in the order of the header.
        start: Where the numbers start.
        metadata: The header's ``__metadata__``; None where it has none.
        header: The header's bytes.
    """

    path: Path
    tree: dict[str, TensorRef]
    start: int
    metadata: dict[str, str] | None
    header: bytes

    def array(self, ref: TensorRef) -> np.ndarray:
        """A tensor's numbers, mapped from the file."""
        return tensors.read(self.path, ref, self.start)


def read(path: Path) -> SafetensorsFile:
    """Read the header; the safetensors library checks it against the file's size, for gaps and for overlaps.

    Raises:
        ModelError: The file is truncated, damaged, contradicts itself, or has a type that numpy does not know.
    """
    from safetensors import SafetensorError, safe_open

    name = shown(path.name)
    try:
        with safe_open(str(path), framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"'{name}' is a truncated or damaged safetensors file: {shown(said)}",
            "the download or copy was cut off, or the file is damaged",
        ) from error
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = file.read(min(length, _LARGEST_HEADER))
    entries = json.loads(header, object_pairs_hook=_unique)
    metadata = entries.pop("__metadata__", None)
    tree: dict[str, TensorRef] = {}
    whole = Storage("", "uint8", path.stat().st_size - 8 - length)
    for key, entry in entries.items():
        dtype = _TYPES.get(entry["dtype"])
        if dtype is None:
            raise ModelError(f"the tensor '{shown(key)}' in '{name}' has the type {shown(entry['dtype'])}, not known")
        shape = tuple(int(n) for n in entry["shape"])
        begin = int(entry["data_offsets"][0])
        item = tensors.DTYPES[dtype].itemsize
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        if begin % item:
            raise ModelError(f"the tensor '{shown(key)}' in '{name}' is not aligned")
        tree[key] = TensorRef(whole, dtype, begin // item, shape, strides)
        tensors.check(tree[key], key)
    return SafetensorsFile(path, tree, 8 + length, metadata, header)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys must differ: of two, readers choose as they like."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ModelError("the safetensors file names a tensor twice", "save it again")
    return found


def write(path: Path, source: SafetensorsFile, changed: Mapping[str, np.ndarray]) -> None:
    """Write the file again with some tensors replaced.

    Keys, their order, their types and the metadata stay. Where no shape changed the header is the same byte for
    byte, and so are the numbers of all other tensors.

    Args:
        path: Where to.
        source: The original.
        changed: New arrays by key, in the type of the original.
    """
    layout = sorted(source.tree, key=lambda key: source.tree[key].offset * _itemsize(source.tree[key]))
    same = all(array.shape == source.tree[key].shape for key, array in changed.items())
    header = source.header if same else _header(source, changed, layout)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for key in layout:
            array = changed[key] if key in changed else source.array(source.tree[key])
            file.write(np.ascontiguousarray(array).tobytes())


def _itemsize(ref: TensorRef) -> int:
    return tensors.DTYPES[ref.dtype].itemsize


def _header(source: SafetensorsFile, changed: Mapping[str, np.ndarray], layout: list[str]) -> bytes:
    position, places = 0, {}
    for key in layout:
        ref = source.tree[key]
        shape = changed[key].shape if key in changed else ref.shape
        size = math.prod(shape) * _itemsize(ref)
        places[key] = {"dtype": _NAMES[ref.dtype], "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    entries: dict[str, object] = {} if source.metadata is None else {"__metadata__": source.metadata}
    entries.update({key: places[key] for key in source.tree})
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    # The format pads its header with blanks so that numbers are aligned.
    return text + b" " * (-len(text) % 8)
