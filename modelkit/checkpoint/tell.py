"""What is in a file of weights, told without torch and without an architecture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.checkpoint import safetensorsfile, state, torchfile
from modelkit.checkpoint.loading import NO_INPUT
from modelkit.checkpoint.tensors import TensorRef
from modelkit.checkpoint.unpickle import Opaque
from modelkit.errors import UnsafeError, UsageError
from modelkit.files import Kind, file_record, require_file, shown, sniff

SCHEMA = "modelkit.state/1"
_CHUNK = 1 << 22
_STATES = (Kind.SAFETENSORS, Kind.TORCH_ZIP, Kind.PICKLE)


def is_state(path: Path) -> bool:
    """Whether a file is of a kind that can hold weights without their program.

    Raises:
        UsageError: There is no such file.
    """
    return sniff(require_file(path)) in _STATES


def tell(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """List the tensors of a file; nothing that it names is run, also where it holds other things too.

    Args:
        path: The file.
        trust: Whether the user said so; only the hint of an error depends on it.

    Returns:
        ``{"schema": "modelkit.state/1", "file": ..., "kind": ..., "state_dict": ..., "others": [...],
        "contents": [...], "parameters": n, "bytes": n, "zeros": share,
        "tensors": [{"name", "shape", "dtype", "bytes", "zeros"}]}``.

    Raises:
        ModelError: The file is damaged or holds no tensors.
        UnsafeError: It is a whole pickled object.
    """
    kind = sniff(path)
    file = safetensorsfile.read(path) if kind is Kind.SAFETENSORS else torchfile.read(path, kind)
    if isinstance(file.tree, Opaque):
        assert isinstance(file, torchfile.TorchFile)
        if trust:
            raise UsageError(f"--input is missing: what shape does '{shown(path.name)}' take?", NO_INPUT)
        raise UnsafeError(torchfile.refusal(file), torchfile.TRUST)
    place = state.find(file.tree, TensorRef, shown(path.name))
    mapping = place.of(file.tree)
    entries: list[dict[str, Any]] = []
    for name, ref in dict.items(mapping):
        if isinstance(ref, TensorRef):
            array = file.array(ref)
            entries.append(
                {
                    "name": str(name),
                    "shape": list(ref.shape),
                    "dtype": ref.dtype,
                    "bytes": ref.nbytes,
                    "zeros": _zeros(array) / ref.size if ref.size else 0.0,
                }
            )
    total = sum(ref.size for ref in dict.values(mapping) if isinstance(ref, TensorRef))
    zeros = sum(e["zeros"] * math.prod(e["shape"]) for e in entries)
    return {
        "schema": SCHEMA,
        "file": file_record(path),
        "kind": "safetensors" if kind is Kind.SAFETENSORS else "state dict",
        "state_dict": ".".join(place.path),
        "others": place.others,
        "contents": list(getattr(file, "opaque", [])),
        "metadata": dict(getattr(file, "metadata", None) or {}),
        "parameters": total,
        "bytes": sum(e["bytes"] for e in entries),
        "zeros": zeros / total if total else 0.0,
        "tensors": entries,
    }


def _zeros(array: np.ndarray) -> int:
    """Number of zeros, counted in pieces so that a mapped file is never read whole."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return sum(int((flat[i : i + _CHUNK] == 0).sum()) for i in range(0, array.size, _CHUNK))
