"""Reads a pickle into plain containers without running anything that it names.

Python's own ``pickle`` does the parsing, with every global replaced by a stand-in of ours: tensors become
``TensorRef``, containers themselves, and all else an ``Opaque`` that only remembers its name. So a file can be looked
at, and checked for what torch would do with it, before torch sees it.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

from modelkit.checkpoint.tensors import DTYPES, Storage, TensorRef
from modelkit.errors import ModelError

_STORAGES = {
    **{
        "FloatStorage": "float32",
        "DoubleStorage": "float64",
        "HalfStorage": "float16",
        "BFloat16Storage": "bfloat16",
    },
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64"},
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


class Opaque:
    """A thing whose kind only its program knows; made in place of every object that is no container or tensor.

    Attributes:
        kind: Its dotted name.
    """

    kind = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""

    def append(self, item: object) -> None:
        """Ignore an item."""

    def extend(self, items: object) -> None:
        """Ignore items."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore an entry."""

    def add(self, item: object) -> None:
        """Ignore an item."""


_Base: Any = pickle._Unpickler


class Reader(_Base):
    """An unpickler that knows the few names of a state dict and runs none of the others.

    The implementation in Python is used on purpose: its memo is a dictionary, while that in C allocates an array as
    long as the largest index that a file names.

    Args:
        file: Where the pickle is; left behind its end.

    Attributes:
        opaque: Names of everything that is neither a container nor a tensor, in order.
        storages: Every storage that a tensor refers to, by its key.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.opaque: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        """Return our own stand-in for a global; nothing is imported."""
        full = f"{module}.{name}"
        if full in _KNOWN:
            return _KNOWN[full]
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in DTYPES:
            return _Type(name)
        self.opaque[full] = None
        # A new class each time: what a pickle does to it ends with this file.
        return type("Opaque", (Opaque,), {"kind": full, "__slots__": ()})

    def persistent_load(self, pid: object) -> Storage:
        """Return the storage that a tensor refers to.

        Raises:
            UnpicklingError: It is none.
        """
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage"):
            raise pickle.UnpicklingError("a reference that is no storage")
        _, dtype, key, _, count = pid[:5]
        if not isinstance(dtype, str) or dtype not in DTYPES or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage whose type or size is not known")
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError("a view of a storage, which torch wrote before version 1.0")
        storage = Storage(str(key), dtype, count)
        if self.storages.setdefault(storage.key, storage).nbytes != storage.nbytes:
            raise pickle.UnpicklingError(f"two sizes for the storage {storage.key}")
        return storage

    def _build(self) -> None:
        """Give an object its state; only what has one of its own may get it."""
        if not isinstance(self.stack[-2], OrderedDict | Opaque):
            raise pickle.UnpicklingError("state for something that has none")
        super().load_build()

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}  # noqa: RUF012


class _Type:
    """Stands for ``torch.float32`` and the like."""

    def __init__(self, name: str) -> None:
        self.name = name


def _tensor(
    storage: object, offset: object, shape: object, strides: object, *rest: object, dtype: str | None = None
) -> TensorRef:
    whole = all(type(n) is int for part in (shape, strides) if isinstance(part, tuple) for n in part)
    if not (
        isinstance(storage, Storage)
        and type(offset) is int
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and whole
    ):
        raise pickle.UnpicklingError("a tensor that is not described as torch does it")
    return TensorRef(storage, dtype or storage.dtype, offset, shape, strides)


def _tensor_v3(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    *rest: object,
) -> TensorRef:
    if not isinstance(dtype, _Type):
        raise pickle.UnpicklingError("a tensor without a type")
    return _tensor(storage, offset, shape, strides, dtype=dtype.name)


def _parameter(data: object, *rest: object) -> object:
    if not isinstance(data, TensorRef):
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return data


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


# OrderedDict is passed on as it is: its attributes (a state dict's versions) are part of the file.
_KNOWN: dict[str, object] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
}


def read(file: IO[bytes], what: str) -> tuple[Any, Reader]:
    """Read one pickle.

    Args:
        file: Where it starts.
        what: The file's name, for errors.

    Returns:
        The plain tree, and the reader, which knows what it met.

    Raises:
        ModelError: It is damaged, or says something that torch would not write.
    """
    reader = Reader(file)
    try:
        return reader.load(), reader
    except RecursionError as error:
        raise ModelError(f"'{what}' is nested too deeply for a checkpoint") from error
    except MemoryError as error:
        raise ModelError(f"'{what}' asks for more memory than there is", "the file is damaged or hostile") from error
    except Exception as error:  # a damaged pickle makes the unpickler raise whatever it likes
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the pickle in '{what}' is damaged, or not one that torch wrote: {said or type(error).__name__}",
            "save the state dict again, or use safetensors",
        ) from error


Visitor = Callable[[str, TensorRef], None]


def walk(tree: object, visit: Visitor) -> None:
    """Call ``visit`` for every tensor in a tree of containers, with its dotted place."""
    seen: set[int] = set()
    stack: list[tuple[str, object]] = [("", tree)]
    while stack:
        place, item = stack.pop()
        if isinstance(item, TensorRef):
            visit(place or "the tensor", item)
            continue
        if not isinstance(item, dict | list | tuple | set) or id(item) in seen:
            continue
        seen.add(id(item))
        # An OrderedDict from a file may have an attribute called "items".
        pairs = dict.items(item) if isinstance(item, dict) else enumerate(item)
        stack.extend((f"{place}.{key}".strip(".")[:300], value) for key, value in pairs)
