"""Checks on the raw protobuf of a model, before any library opens what it points to."""

from __future__ import annotations

import math
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import Message  # type: ignore[import-untyped]

from modelkit.errors import ModelError, UnsafeError
from modelkit.files import Kind, contained, sniff
from modelkit.protos import nodes_in

_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
# Inlining multiplies: ten functions that call each other ten times make 10^10 nodes.
MAX_INLINED_NODES = 1_000_000


@dataclass(frozen=True)
class _Region:
    """A tensor's bytes in an external file, ``[start, end)``."""

    start: int
    end: int
    tensor: str


def tensors_in(message: Message) -> Iterator[onnx.TensorProto]:
    """Walk over every tensor below a message: graphs, subgraphs, functions, sparse, attributes."""
    if isinstance(message, onnx.TensorProto):
        _check_text(message.name)
        yield message
        return
    for field, content in message.ListFields():
        if field.message_type is None:
            if field.type == field.TYPE_STRING:
                _check_text(content)
            continue
        # A map or a repeated field iterates; a single message does not.
        for child in [content] if isinstance(content, Message) else content:
            yield from tensors_in(child)


def _check_text(content: object) -> None:
    """Refuse text that is not UTF-8: protobuf hands it out as bytes, and later code would stumble on it."""
    if isinstance(content, bytes) or (not isinstance(content, str) and any(isinstance(t, bytes) for t in content)):  # type: ignore[attr-defined]
        raise ModelError("the model holds a name that is not UTF-8 text: it is damaged")


def check_tensors(proto: onnx.ModelProto, path: Path) -> list[Path]:
    """Check that each tensor holds what it declares and that external data stays in the folder.

    Args:
        proto: The model as parsed, external data not loaded.
        path: The model's file; external data must lie in its folder or below.

    Returns:
        The external files, sorted, each once.

    Raises:
        ModelError: A tensor's data is missing, too short, too long or overlaps another's.
        UnsafeError: External data leaves the folder (absolute, ``..``, link) or is no plain file.
    """
    regions: dict[Path, list[_Region]] = {}
    for tensor in tensors_in(proto):
        expected = _expected_bytes(tensor)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            file, region = _external_region(tensor, expected, path)
            regions.setdefault(file, []).append(region)
        else:
            _check_inline(tensor, expected)
    for file, used in regions.items():
        _check_overlaps(file, used)
    return sorted(regions)


def _expected_bytes(tensor: onnx.TensorProto) -> int | None:
    """Bytes that the declared shape and type need; None for text, which has no fixed size."""
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"the tensor '{tensor.name}' declares a negative dimension {list(tensor.dims)}")
    try:
        dtype = ir.DataType(tensor.data_type)
        if dtype == ir.DataType.STRING:
            return None
        return -(-math.prod(tensor.dims) * dtype.bitwidth // 8)
    except (ValueError, TypeError):
        raise ModelError(
            f"the tensor '{tensor.name}' has the unknown data type {tensor.data_type}",
            "update modelkit's onnx package, or export the model again",
        ) from None


def _check_inline(tensor: onnx.TensorProto, expected: int | None) -> None:
    """Check the data that is stored inside the model file."""
    count = math.prod(tensor.dims)
    if expected is None:
        found, unit, wanted = len(tensor.string_data), "strings", count
    elif tensor.HasField("raw_data"):
        found, unit, wanted = len(tensor.raw_data), "bytes", expected
    else:
        found = sum(len(getattr(tensor, field)) for field in _TYPED_FIELDS)
        unit, wanted = "elements", count
        bits = ir.DataType(tensor.data_type).bitwidth
        if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            wanted = 2 * count
        elif bits in (2, 4):
            wanted = expected  # packed, one byte for each stored number
    if found != wanted:
        raise ModelError(
            f"the tensor '{tensor.name}' of shape {list(tensor.dims)} needs {wanted} {unit} and has {found}",
            "the file is damaged or its weights were stripped; export it again",
        )


def _external_region(tensor: onnx.TensorProto, expected: int | None, path: Path) -> tuple[Path, _Region]:
    """Find and check the file and the bytes that an external tensor points to."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location:
        raise ModelError(f"the tensor '{tensor.name}' is external but names no file")
    if expected is None:
        raise ModelError(f"the tensor '{tensor.name}' holds text, which ONNX does not allow in external data")
    file = contained(path.parent, location)
    try:
        status = file.stat()
    except OSError:
        raise ModelError(
            f"the external data file '{location}' of '{path.name}' is missing",
            f"put it beside the model, in {path.parent.resolve()}",
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeError(f"the external data '{location}' of '{path.name}' is not a plain file")
    if sniff(file) is Kind.LFS_POINTER:
        raise ModelError(
            f"the external data file '{location}' of '{path.name}' is a Git LFS pointer, not the data itself",
            "run git lfs pull",
        )
    if status.st_nlink > 1:
        # onnx_ir and onnxruntime refuse these later with less to say: a hard link can be a way out.
        raise UnsafeError(
            f"the external data file '{location}' has {status.st_nlink} hard links",
            "it may be a file from elsewhere; replace it by a copy of its own",
        )
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or expected)
    except ValueError:
        raise ModelError(f"the tensor '{tensor.name}' has an offset or length that is no number") from None
    if offset < 0 or length != expected or offset + length > status.st_size:
        raise ModelError(
            f"the tensor '{tensor.name}' needs {expected} bytes; it points to {length} bytes at {offset}"
            f" of '{location}', which has {status.st_size}",
            "the data file is damaged or belongs to another model",
        )
    return file, _Region(offset, offset + length, tensor.name)


def _check_overlaps(file: Path, used: list[_Region]) -> None:
    """Refuse regions that overlap in part; the same region may serve several tensors."""
    last: _Region | None = None
    for region in sorted(set(used), key=lambda r: (r.start, r.end, r.tensor)):
        if region.start == region.end:
            continue
        same = last is not None and (region.start, region.end) == (last.start, last.end)
        if last is not None and region.start < last.end and not same:
            raise ModelError(
                f"the tensors '{last.tensor}' and '{region.tensor}' overlap in '{file.name}'",
                "the model or its data file is damaged",
            )
        last = region


def check_functions(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse model-local functions that are broken, or whose inlining would not end or would flood the memory.

    Raises:
        ModelError: A function reads or gives what nothing in it makes.
        UnsafeError: Inlined, the model has more than ``MAX_INLINED_NODES`` nodes, or never ends.
    """
    bodies = {(f.domain, f.name, f.overload): f for f in proto.functions}
    if not bodies:
        return
    for function in proto.functions:
        _check_body(function, path)
    sizes: dict[tuple[str, str, str], int] = {}
    active: set[tuple[str, str, str]] = set()

    def size_of(message: Message) -> int:
        total = 0
        for node in nodes_in(message):
            key = (node.domain, node.op_type, node.overload)
            total += function_size(key) if key in bodies else 1
        return total

    def function_size(key: tuple[str, str, str]) -> int:
        if key in active or len(active) > 100:
            raise UnsafeError(f"the function '{key[1]}' in '{path.name}' calls itself")
        if key not in sizes:
            active.add(key)
            sizes[key] = size_of(bodies[key])
            active.remove(key)
        return sizes[key]

    total = size_of(proto.graph)
    if total > MAX_INLINED_NODES:
        raise UnsafeError(f"the functions of '{path.name}' expand to {total:.3g} nodes")


def _check_body(function: onnx.FunctionProto, path: Path) -> None:
    made = {"", *function.input}
    for node in function.node:
        _check_made(node.input, made, function, path)
        made.update(node.output)
    _check_made(function.output, made, function, path)


def _check_made(names: Iterable[str], made: Container[str], function: onnx.FunctionProto, path: Path) -> None:
    for name in names:
        if name not in made:
            raise ModelError(
                f"the function '{function.name}' in '{path.name}' needs '{name}', which nothing in it makes",
                "the file was changed after it was written: make it again",
            )
