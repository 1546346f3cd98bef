"""ExportedProgram files (``.pt2``): everything in them that torch would run while loading is refused or left out.

``torch.export.load`` unpickles (weights marked so, sample inputs, opaque constants, files of the older form),
evaluates symbolic sizes as Python (``sympify``), calls whatever a node names (``torch.os.system``), imports modules
that a tree spec names, compiles node names and guards into Python, and loads native code of AOTInductor. So the
archive is read here first: a plain program of ATen operators is rebuilt in memory without the parts that are not
needed, and that copy is what torch loads. Anything else takes ``--trust``.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.checkpoint import archive, programcheck, tensors
from modelkit.checkpoint.quiet import quiet
from modelkit.checkpoint.tensors import Storage, TensorRef
from modelkit.checkpoint.torchfile import TRUST
from modelkit.errors import ModelError, UnsafeError
from modelkit.files import shown

if TYPE_CHECKING:
    import torch

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = {
    "data/weights/model_weights_config.json": ("data/weights/", "weight"),
    "data/constants/model_constants_config.json": ("data/constants/", "tensor"),
}
_LARGEST_JSON = 1 << 27
_CUT = "the download or copy was cut off, or the file is damaged; save it again with torch.export.save"
# torch.export's numbers for types.
_TYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"},
    **{10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16"},
}


def load(path: Path, *, trust: bool) -> tuple[torch.export.ExportedProgram, bool]:
    """Load an ExportedProgram on the CPU.

    Args:
        path: The file.
        trust: Whether one that can run code while it is loaded may be.

    Returns:
        The program, and whether it needed the trust.

    Raises:
        UnsafeError: It needs trust and has none, or it would take absurd memory.
        ModelError: It is damaged, or torch cannot load it.
    """
    import torch

    name = shown(path.name)
    try:
        source: Any = _plain(path)
        needed = False
    except programcheck.RunsCodeError as error:
        if not trust:
            raise UnsafeError(f"'{name}' can run code while it is loaded: {error}", TRUST) from error
        source, needed = str(path), True
    try:
        with quiet():
            return torch.export.load(source), needed
    except Exception as error:  # torch raises many kinds
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"torch cannot load '{name}': {type(error).__name__}: {shown(said)}", _CUT) from error


def _plain(path: Path) -> io.BytesIO:
    """Rebuild the archive with what is needed of it, all of it checked."""
    listed = archive.members(path)
    names = set(listed)
    if "serialized_exported_program.json" in names or any(n.endswith(".pt") and n != _SAMPLES for n in names):
        raise programcheck.RunsCodeError("it has the older form, whose weights are a pickle")
    if any(n.startswith("data/aotinductor") for n in names):
        raise programcheck.RunsCodeError("it holds compiled code")
    if _MODEL not in names or any(n.startswith("models/") and n != _MODEL for n in names):
        raise ModelError(f"'{shown(path.name)}' does not hold one exported program, 'model'", _CUT)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as copy:

        def put(name: str, content: bytes) -> None:
            copy.writestr(f"archive/{name}", content)

        put("archive_format", b"pt2")
        put("archive_version", _content(path, listed, "archive_version"))
        put("byteorder", b"little")
        put(".data/version", b"6\n")
        program = _json(path, listed, _MODEL)
        programcheck.check(program)
        put(_MODEL, json.dumps(program).encode())
        put(_SAMPLES, b"")
        for config, (folder, kind) in _CONFIGS.items():
            entries = _json(path, listed, config)
            for name in _checked_payloads(entries, listed, folder, kind):
                put(folder + name, archive.content(path, listed[folder + name]))
            put(config, json.dumps(entries).encode())
    made.seek(0)
    return made


def _content(path: Path, listed: dict[str, archive.Member], name: str) -> bytes:
    if name not in listed:
        raise ModelError(f"'{shown(path.name)}' lacks '{name}'", _CUT)
    if listed[name].size > _LARGEST_JSON:
        raise UnsafeError(f"'{name}' in '{shown(path.name)}' is too large")
    return archive.content(path, listed[name])


def _json(path: Path, listed: dict[str, archive.Member], name: str) -> Any:
    try:
        return json.loads(_content(path, listed, name))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{name}' in '{shown(path.name)}' is damaged", _CUT) from error


def _checked_payloads(entries: Any, listed: dict[str, archive.Member], folder: str, kind: str) -> list[str]:
    """Check the table of weights or constants; returns the members that it names, each once."""
    if not isinstance(entries, dict) or not isinstance(entries.get("config"), dict):
        raise ModelError(f"the table of {kind}s is damaged", _CUT)
    found: dict[str, None] = {}
    for key, entry in entries["config"].items():
        meta = entry.get("tensor_meta") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False or not isinstance(meta, dict):
            raise programcheck.RunsCodeError(f"'{shown(str(key))[:100]}' is pickled")
        name = entry.get("path_name")
        if not isinstance(name, str) or not re.fullmatch(kind + r"_\d{1,9}", name):
            raise programcheck.RunsCodeError(f"'{shown(str(key))[:100]}' is no tensor but another object")
        programcheck.check_names(entry)
        programcheck.check_names({str(key): None})
        if folder + name not in listed:
            raise ModelError(f"the numbers of '{shown(str(key))[:100]}' are not in the file", _CUT)
        meta["device"] = {"type": "cpu", "index": None}
        try:
            ref = _ref(meta, listed[folder + name].size)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the description of '{shown(str(key))[:100]}' is damaged", _CUT) from error
        tensors.check(ref, str(key))
        found[name] = None
    return list(found)


def _ref(meta: dict[str, Any], size: int) -> TensorRef:
    dtype = _TYPES[meta["dtype"]]
    sizes, strides = ([int(each["as_int"]) for each in meta[part]] for part in ("sizes", "strides"))
    offset = int(meta["storage_offset"]["as_int"])
    return TensorRef(Storage("", "uint8", size), dtype, offset, tuple(sizes), tuple(strides))
