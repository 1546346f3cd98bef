"""Read an ONNX file: content decides, external data is checked, functions are inlined."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import InlinePass

from modelkit.errors import ModelError, ModelkitError
from modelkit.files import require_file, sha256, shown, sniff
from modelkit.graph import protocheck, sparse
from modelkit.graph.tensors import slots
from modelkit.packing.restore import restore


@dataclass
class Loaded:
    """A model in memory and the files that it came from.

    Attributes:
        model: The graph; weights in external files are memory-mapped, not read.
        path: The model's file.
        sha256: Hash of that file, without its external data.
        size_bytes: Bytes of that file and of its external files.
        external: The external files, sorted.
        packed: Names of the weights that were packed in the file; in memory they are as any other.
    """

    model: ir.Model
    path: Path
    sha256: str
    size_bytes: int
    external: list[Path] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)


_TEXT = {"text", "csv", "json", "yaml", "html"}


def load(path: Path) -> Loaded:
    """Read an ONNX model, whatever its file is called.

    Packed weights are restored, model-local functions inlined and sparse tensors made dense, because nothing
    later expects them. Information for training that an old exporter stored is dropped.

    Args:
        path: The file. External data must lie in its folder or below.

    Raises:
        UsageError: There is no such file.
        ModelError: The file is empty, damaged, not ONNX, or contradicts itself.
        UnsafeError: External data points out of the folder, or functions expand without end.
    """
    path = Path(path)
    require_file(path)
    try:
        return _load(path)
    except ModelkitError as error:
        # Names come from the file: control characters in them must not reach a terminal.
        raise type(error)(shown(error.message), error.hint and shown(error.hint)) from error.__cause__


def packed_names(path: Path) -> list[str]:
    """Names of the weights that are packed in a file; none for what is no ONNX file.

    Raises:
        UsageError: There is no such file.
        ModelError: It is damaged.
    """
    require_file(path)
    return restore(_parse(path)) if str(sniff(path)) == "onnx" else []


def _load(path: Path) -> Loaded:
    _require_onnx(path)
    proto = _parse(path)
    external = protocheck.check_tensors(proto, path)
    protocheck.check_functions(proto, path)
    sparse.densify(proto)
    packed = restore(proto)
    with _quiet():
        model = _to_ir(proto, path)
    _check_graph(model, path)
    size = sum(file.stat().st_size for file in [path, *external])
    return Loaded(model, path, sha256(path), size, external, packed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnx_ir's warnings about what is checked here with an error."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _require_onnx(path: Path) -> None:
    """Refuse a file that is something else, saying what it is."""
    kind = str(sniff(path))
    if kind == "onnx":
        return
    if kind == "empty":
        raise ModelError(f"'{path}' is empty", "was the download or export cut off?")
    if kind == "lfs_pointer":
        raise ModelError(f"'{path}' is a Git LFS pointer, not the model itself", "run git lfs pull")
    if kind in _TEXT:
        raise ModelError(
            f"'{path}' is a text file{'' if kind == 'text' else f' ({kind})'}, not an ONNX model",
            "look into it: a failed download often saves an error page under the model's name",
        )
    if kind == "unknown":
        raise ModelError(f"'{path}' is not an ONNX model", "its first bytes fit no format that modelkit knows")
    article = "an" if kind[0] in "aeiou" else "a"
    raise ModelError(
        f"'{path}' is {article} {kind.replace('_', ' ')} file; this command reads only ONNX files",
        "export the model to ONNX first",
    )


def _parse(path: Path) -> onnx.ModelProto:
    """Parse the protobuf without opening external data."""
    hint = "the download or copy was cut off, or the file is damaged"
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise ModelError(f"'{path}' is a truncated or damaged ONNX model", hint) from None
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"'{path}' holds no graph: it is a truncated or damaged ONNX model", hint)
    if not proto.opset_import:
        raise ModelError(f"'{path}' names no operator set: it is a truncated or damaged ONNX model", hint)
    for entry in proto.opset_import:
        # The standard set has two names; all later code knows the short one.
        if entry.domain == "ai.onnx":
            entry.domain = ""
    return proto


def _to_ir(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """Turn the protobuf into onnx_ir's model, functions inlined, external tensors bound to the folder."""
    names = [output.name for output in proto.graph.output]
    try:
        model = ir.serde.deserialize_model(proto)
        if model.functions:
            InlinePass()(model)
            model.functions.clear()
    except ModelkitError:
        raise
    except Exception as error:  # onnx_ir raises many classes, and chains them
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"'{path}' is not a valid ONNX model: {detail}", "export it again") from error
    if [output.name for output in model.graph.outputs] != names:
        raise ModelError(f"'{path}' has a function that only passes its input on; inlining cannot keep its name")
    for slot in slots(model):
        if isinstance(slot.tensor, ir.ExternalTensor):
            slot.tensor.base_dir = path.parent
    return model


def _check_graph(model: ir.Model, path: Path) -> None:
    """Check that names are defined once and before they are used, and that there is a result."""
    if not model.graph.outputs:
        raise ModelError(f"the graph in '{path}' has no outputs", "export the model again")
    for graph in model.graphs():
        for value in graph.outputs:
            if not _is_defined(value):
                raise ModelError(f"the output '{value.name}' in '{path}' is produced by no node")
        for node in graph:
            for read in node.inputs:
                if read is not None and not _is_defined(read):
                    raise ModelError(
                        f"the {node.op_type} node '{node.name}' in '{path}' reads '{read.name}',"
                        " which nothing produces"
                    )
    try:
        model.graph.sort()
    except ValueError:
        raise ModelError(f"the graph in '{path}' contains a cycle", "export the model again") from None


def _is_defined(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()
