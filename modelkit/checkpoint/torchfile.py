"""What ``torch.save`` wrote, in its zip or its older form: looked at and checked without torch, then loaded by it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.checkpoint import archive, tensors, unpickle
from modelkit.checkpoint.tensors import Storage, TensorRef
from modelkit.errors import ModelError, UnsafeError
from modelkit.files import Kind, shown

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LARGEST_PICKLE = 1 << 28
_CUT = "the download or copy was cut off, or the file is damaged"
TRUST = "--trust loads it; do so only with a file from someone you would let run programs on this machine"


@dataclass
class TorchFile:
    """A file of ``torch.save``, nothing of it loaded.

    Attributes:
        path: The file.
        tree: What was saved, as plain containers with ``TensorRef`` for tensors.
        opaque: Names of other things in it, which torch would have to import.
        starts: Where each storage starts in the file.
        zipped: Whether it has the form that torch writes since version 1.6.
    """

    path: Path
    tree: Any
    opaque: list[str]
    starts: dict[str, int]
    zipped: bool = True

    def array(self, ref: TensorRef) -> np.ndarray:
        """A tensor's numbers, mapped from the file.

        Raises:
            ModelError: They are not all there.
        """
        return tensors.read(self.path, ref, self.starts[ref.storage.key])


def read(path: Path, kind: Kind) -> TorchFile:
    """Look at a file of ``torch.save`` and check that it can be loaded without harm.

    Args:
        path: The file.
        kind: ``TORCH_ZIP``, or ``PICKLE`` for what torch wrote before version 1.6.

    Raises:
        ModelError: It is truncated, damaged, or of another form.
        UnsafeError: A tensor or a storage takes more memory than the file has for it.
    """
    found = _read_zip(path) if kind is Kind.TORCH_ZIP else _read_legacy(path)
    unpickle.walk(found.tree, lambda place, ref: tensors.check(ref, place))
    return found


def _read_zip(path: Path) -> TorchFile:
    name = shown(path.name)
    listed = archive.members(path)
    if "data.pkl" not in listed:
        raise ModelError(f"'{name}' is a truncated or damaged checkpoint: it has no data.pkl", _CUT)
    order = listed.get("byteorder")
    if order is not None and archive.content(path, order) != b"little":
        raise ModelError(f"'{name}' was saved on a machine with the other byte order", "save it again as safetensors")
    member = listed["data.pkl"]
    if member.size > _LARGEST_PICKLE:
        raise UnsafeError(f"the pickle in '{name}' has {member.size} bytes, too many for a checkpoint")
    content = BytesIO(archive.content(path, member))
    tree, reader = unpickle.read(content, name)
    for storage in reader.storages.values():
        stored = listed.get(f"data/{storage.key}")
        if stored is None:
            raise ModelError(f"'{name}' lacks the numbers of the storage {shown(storage.key)[:100]}", _CUT)
        _check_size(name, storage, stored.size)
    starts = {key: listed[f"data/{key}"].start for key in reader.storages}
    return TorchFile(path, tree, list(reader.opaque), starts)


def _check_size(name: str, storage: Storage, stored: int) -> None:
    if storage.nbytes != stored:
        raise UnsafeError(
            f"'{name}' says that a storage has {storage.nbytes} bytes, and holds {stored} bytes of it",
            "the file is damaged or was made to mislead; save it again with torch",
        )


def _read_legacy(path: Path) -> TorchFile:
    """Magic number, protocol, system, the object, keys of its storages, then each one's count and bytes."""
    name, total = shown(path.name), archive.size_of(path)
    with path.open("rb") as file:
        first, reader = unpickle.read(file, name)
        if first != _MAGIC:
            # A plain pickle: the object itself, which torch never writes so.
            return TorchFile(path, first, list(reader.opaque) or ["a pickle that torch did not write"], {}, False)
        if unpickle.read(file, name)[0] != _PROTOCOL:
            raise ModelError(f"'{name}' is a checkpoint of an unknown version", "save it again with a newer torch")
        unpickle.read(file, name)
        tree, reader = unpickle.read(file, name)
        keys, _ = unpickle.read(file, name)
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(reader.storages):
            raise ModelError(f"'{name}' does not list its storages", _CUT)
        position, starts = file.tell(), {}
        for key in map(str, keys):
            storage = reader.storages[key]
            file.seek(position)
            head = file.read(8)
            if len(head) < 8 or position + 8 + storage.nbytes > total:
                raise ModelError(f"'{name}' is truncated: it lacks numbers that it announces", _CUT)
            count = int.from_bytes(head, "little", signed=True)
            _check_size(name, storage, count * tensors.DTYPES[storage.dtype].itemsize)
            starts[key] = position + 8
            position += 8 + storage.nbytes
    return TorchFile(path, tree, list(reader.opaque), starts, zipped=False)


def load(found: TorchFile, *, trust: bool) -> Any:
    """Let torch load the file, on the CPU.

    Args:
        found: What ``read`` found out about it.
        trust: Whether objects that can run code may be loaded.

    Raises:
        UnsafeError: It holds such objects and is not trusted.
        ModelError: torch cannot load it.
    """
    import torch

    name = shown(found.path.name)
    if found.opaque and not trust:
        raise UnsafeError(refusal(found), TRUST)
    try:
        return torch.load(found.path, map_location="cpu", weights_only=not found.opaque)
    except pickle.UnpicklingError as error:
        raise UnsafeError(f"torch refuses '{name}': {_first_line(error)}", TRUST) from error
    except Exception as error:  # what an object raises while it is built may be anything
        raise ModelError(f"torch cannot load '{name}': {type(error).__name__}: {_first_line(error)}") from error


def refusal(found: TorchFile) -> str:
    """Say why a file with other things than tensors is not loaded."""
    names = ", ".join(shown(name)[:80] for name in found.opaque[:3])
    more = f" and {len(found.opaque) - 3} more" if len(found.opaque) > 3 else ""
    if isinstance(found.tree, unpickle.Opaque):
        kind = shown(found.tree.kind)[:120]
        return f"'{shown(found.path.name)}' is a whole pickled object ({kind}): loading it can run any code"
    return f"'{shown(found.path.name)}' holds more than tensors ({names}{more}): loading it can run any code"


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
