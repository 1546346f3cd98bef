"""What belongs to a file that is read: a model's external data, the modules that a checkpoint's code imports."""

from __future__ import annotations

import ast
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from modelkit.errors import ModelkitError
from modelkit.files import contained

ENTRY = "modelkit.batch.beside:beside"


def beside(path: Path) -> list[Path]:
    """Tell what else must be there where a file is to be read (a ``Beside`` of modelkit.jobs.protocol).

    Args:
        path: A model, the file of a module, or anything else that is read.

    Returns:
        For an ONNX model its external data, as far as it is there and within the model's folder. For a Python module
        those that it imports, directly or not, from the current folder.
    """
    if path.is_dir():
        return []
    if path.suffix == ".py":
        return modules(path, Path.cwd())
    return external_data(path)


def code_of(arch: str, folder: Path) -> Path | None:
    """The file of the module that ``--arch`` names, if it lies in a folder; else it is installed, or is not there."""
    module = folder.joinpath(*arch.partition(":")[0].split("."))
    for path in (module.with_name(f"{module.name}.py"), module / "__init__.py"):
        if path.is_file():
            return path
    return None


def external_data(model: Path) -> list[Path]:
    """Files that hold weights of an ONNX model beside it; nothing for a damaged one: who reads it will say so."""
    with (
        suppress(OSError, ValueError),
        model.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content.find(b"location") < 0:  # as in nearly all models: no need to parse it
            return []
        return _locations(model)
    return []


def _locations(model: Path) -> list[Path]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from modelkit.graph.protocheck import tensors_in

    found: dict[Path, None] = {}
    proto = onnx.ModelProto()
    with suppress(DecodeError, ModelkitError):
        proto.ParseFromString(model.read_bytes())
        for tensor in tensors_in(proto):
            for entry in tensor.external_data:
                if entry.key == "location":
                    with suppress(ModelkitError):
                        contained(model.parent, entry.value)
                        found[model.parent / entry.value] = None
    return [path for path in found if path.is_file()]


def modules(module: Path, folder: Path) -> list[Path]:
    """Python files in a folder that a module needs: its package, and all that is imported from the folder."""
    todo, seen, found = [_top(module, folder)], set[str](), dict[Path, None]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        single = folder / f"{name}.py"
        files = sorted((folder / name).rglob("*.py")) + ([single] if single.is_file() else [])
        for file in files:
            found[file] = None
            todo += _imports(file)
    return list(found)


def _top(module: Path, folder: Path) -> str:
    first = module.relative_to(folder).parts[0]
    return first.removesuffix(".py")


def _imports(file: Path) -> Iterator[str]:
    """First parts of the names of the modules that a file imports."""
    with suppress(OSError, ValueError, SyntaxError, RecursionError):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module.partition(".")[0]
