"""Write a model: the same model gives the same bytes; large weights go to a data file beside it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from modelkit.errors import ModelError, ResourceError
from modelkit.graph.shapes import INFERRED
from modelkit.graph.tensors import Slot, nbytes, slots

# A protobuf message ends at 2 GiB; the rest is room for the graph itself.
INLINE_LIMIT_BYTES = 1_900_000_000
SMALL_BYTES = 1024
# onnxruntime maps a tensor straight from the file where it starts on a page.
_PAGE_BYTES = 4096
_ALIGNED_BYTES = 1 << 20


def save(model: ir.Model, path: Path, *, external: bool | None = None) -> list[Path]:
    """Write a model, and its data file where one is needed.

    Both files are written under a temporary name and renamed, the data file first. Weights that are
    memory-mapped are copied from file to file, so that a model of any size takes little memory. The
    model in memory stays valid, also when the data file replaced is the one that it is mapped from.

    Args:
        model: What to write; it is not changed.
        path: Where to; its folder must exist.
        external: True puts tensors of 1 KiB and more into ``<name>.data`` beside it, False keeps them
            inside, None puts them outside only when all of them take more than 1.9 GB.

    Returns:
        The files written: ``[path]`` or ``[path, data file]``.

    Raises:
        ModelError: The weights do not fit into one file and ``external`` is False.
        ResourceError: The folder cannot be written or the disk is full.
    """
    path = Path(path)
    data_path = path.with_name(path.name + ".data")
    places = list(slots(model))
    total = sum(nbytes(slot.tensor) for slot in places)
    if external is None:
        external = total > INLINE_LIMIT_BYTES
    outside = [external and _fits_outside(slot.tensor) for slot in places]
    inside_bytes = sum(nbytes(slot.tensor) for slot, out in zip(places, outside, strict=True) if not out)
    if inside_bytes > INLINE_LIMIT_BYTES:
        raise ModelError(
            f"{inside_bytes / 1e9:.1f} GB of weights are more than fits into one ONNX file",
            "write them to external data",
        )
    model_temporary, data_temporary = (p.with_name(f".{p.name}.{os.getpid()}.tmp") for p in (path, data_path))
    try:
        offsets: list[int] = []
        if any(outside):
            with data_temporary.open("wb") as file:
                offsets = [_append(file, slot) if out else -1 for slot, out in zip(places, outside, strict=True)]
        else:
            offsets = [-1] * len(places)
        stand_ins = [_stand_in(s.tensor, data_path, o) for s, o in zip(places, offsets, strict=True)]
        with _standing_in(places, stand_ins):
            proto = ir.serde.serialize_model(model)
        _forget_shapes(proto.graph, _inferred(model))
        content = proto.SerializeToString(deterministic=True)
        del proto
        model_temporary.write_bytes(content)
        del content
        if any(outside):
            _detach(places, stand_ins, data_path)
            data_temporary.replace(data_path)
        model_temporary.replace(path)
    except OSError as error:
        raise ResourceError(
            f"cannot write '{path}': {error.strerror or error}", "free some space or choose another folder"
        ) from error
    finally:
        for leftover in (model_temporary, data_temporary):
            leftover.unlink(missing_ok=True)
    return [path, data_path] if any(outside) else [path]


def saved_bytes(model: ir.Model) -> int:
    """How many bytes a model takes as a file, its data file included; it is written to find out."""
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        return sum(path.stat().st_size for path in save(model, Path(folder) / "model.onnx"))


def _fits_outside(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and nbytes(tensor) >= SMALL_BYTES


def _append(file: BinaryIO, slot: Slot) -> int:
    """Append a tensor's data to an open file and return where it starts."""
    size = nbytes(slot.tensor)
    if size >= _ALIGNED_BYTES:
        file.write(b"\0" * (-file.tell() % _PAGE_BYTES))
    start = file.tell()
    tensor = slot.tensor
    if isinstance(tensor, ir.Tensor | ir.ExternalTensor):
        tensor.tofile(file)  # straight from a mapped file, where it lies in one
    else:
        file.write(tensor.tobytes())
    if file.tell() - start != size:
        raise ModelError(f"the tensor '{slot.name}' needs {size} bytes and gave {file.tell() - start}")
    return start


def _stand_in(tensor: ir.TensorProtocol, data_path: Path, offset: int) -> ir.TensorProtocol:
    """Return what is serialised in place of a tensor: a pointer to the data file, or its own data."""
    if offset >= 0:
        return ir.ExternalTensor(
            data_path.name,
            offset,
            nbytes(tensor),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name or "",
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
            base_dir=data_path.parent,
        )
    if isinstance(tensor, ir.ExternalTensor):
        return ir.Tensor(
            tensor.numpy(),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    return tensor


@contextmanager
def _standing_in(places: list[Slot], stand_ins: list[ir.TensorProtocol]) -> Iterator[None]:
    """Put the stand-ins into the model for a while."""
    changed = [(s, t) for s, t in zip(places, stand_ins, strict=True) if t is not s.tensor]
    try:
        for slot, tensor in changed:
            slot.put(tensor)
        yield
    finally:
        for slot, _ in changed:
            slot.put(slot.tensor)


def _inferred(model: ir.Model) -> set[str]:
    """Names of the values whose shape was inferred here, not written by the exporter."""
    return {v.name or "" for node in model.graph.all_nodes() for v in node.outputs if v.meta.get(INFERRED)}


def _forget_shapes(graph: onnx.GraphProto, inferred: set[str]) -> None:
    """Drop shapes that only repeat what initializers say, or that anyone can infer again.

    In a model of a few kilobytes they would be half of the file.
    """
    inferred = inferred | {tensor.name for tensor in graph.initializer}
    for index in reversed(range(len(graph.value_info))):
        if graph.value_info[index].name in inferred:
            del graph.value_info[index]
    for node in graph.node:
        for attribute in node.attribute:
            for below in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _forget_shapes(below, inferred)


def _detach(places: list[Slot], stand_ins: list[ir.TensorProtocol], data_path: Path) -> None:
    """Point tensors that are mapped from the file about to be replaced to what replaces it."""
    if not data_path.exists():
        return
    for slot, tensor in zip(places, stand_ins, strict=True):
        if isinstance(slot.tensor, ir.ExternalTensor) and data_path.samefile(slot.tensor.path):
            # What stays inside holds its array, whose mapping outlives the old file's name.
            slot.put(tensor)
