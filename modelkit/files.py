"""Files from outside, checked before use: existence, kind, containment, hashes, and what may be overwritten.

Kinds are told apart in ``modelkit.sniff``; ``modelkit.staging`` writes files all or none. What others need of
both is available from here.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from modelkit.errors import ResourceError, UnsafeError, UsageError
from modelkit.sniff import Kind, kind_of
from modelkit.staging import Staging, exists_error, shown

__all__ = [
    "Kind",
    "Staging",
    "check_outputs",
    "contained",
    "content_hash",
    "file_record",
    "json_bytes",
    "outputs_of",
    "require_file",
    "sha256",
    "shown",
    "sniff",
    "write_json",
]


def require_file(path: Path) -> Path:
    """Return the path of an existing, readable, regular file.

    Raises:
        UsageError: It is missing (the hint names near ones), a folder, or a device or pipe.
        ResourceError: It cannot be read.
    """
    name = shown(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
            return path
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if path.is_symlink():
            target = shown(path.readlink())
            raise UsageError(f"'{name}' is a link to '{target}', which does not exist") from error
        raise UsageError(f"'{name}' does not exist", _near(path)) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError("a path of that length cannot exist", "check the argument") from error
        raise ResourceError(f"cannot read '{name}': {error.strerror}", "check its permissions") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"'{name}' is a folder; a file is expected", "name one file inside it")
    raise UsageError(f"'{name}' is not a regular file", "write it to a file first; pipes cannot be read twice")


def _near(path: Path) -> str | None:
    """A hint with the names in the path's folder that are most like it."""
    try:
        with os.scandir(path.parent) as entries:
            names = sorted(entry.name for entry in islice(entries, 10_000))
    except (OSError, ValueError):
        return f"the folder '{shown(path.parent)}' cannot be opened"
    lower = {name.lower(): name for name in names}
    near = [lower[match] for match in difflib.get_close_matches(path.name.lower(), lower, n=3)]
    return "did you mean " + " or ".join(f"'{shown(name)}'" for name in near) + "?" if near else None


def sniff(path: Path) -> Kind:
    """Tell what a file holds, by its content. A truncated file gets the kind that it was meant to be.

    Raises:
        ResourceError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return kind_of(file)
    except OSError as error:
        raise ResourceError(f"cannot read '{shown(path)}': {error.strerror or error}") from error


def contained(base: Path, location: str) -> Path:
    """Resolve a location that a file names, such as ONNX external data, and keep it inside a folder.

    Args:
        base: The folder that must hold it.
        location: Relative path with forward slashes, as the (untrusted) file gives it.

    Returns:
        The absolute path with all links followed. It need not exist.

    Raises:
        UnsafeError: The location is absolute, has a drive letter, ``..`` or a backslash, names no file, or
            leads out of the folder through a link.
    """
    name = shown(location)[:200]
    hint = "a model may only refer to files in its own folder; copy them there and correct the references"
    if location.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", location):
        raise UnsafeError(f"the location '{name}' is absolute", hint)
    parts = [part for part in location.split("/") if part not in ("", ".")]
    if ".." in re.split(r"[/\\]", location):
        raise UnsafeError(f"the location '{name}' leaves its folder by '..'", hint)
    if not parts or "\0" in location or "\\" in location:
        raise UnsafeError(f"the location '{name}' is not a plain relative file name", hint)
    try:
        root = base.resolve()
        target = root.joinpath(*parts).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that is too long
        raise UnsafeError(f"the location '{name}' cannot be resolved", hint) from error
    if target == root or not target.is_relative_to(root):
        raise UnsafeError(f"the location '{name}' leads out of its folder, to '{shown(target)}'", hint)
    return target


def file_record(path: Path, external: Sequence[Path] = ()) -> dict[str, Any]:
    """Describe a file for a report: its ``name`` (without folder), size in ``bytes`` and ``sha256``.

    Args:
        path: The file.
        external: Files in its folder or below that belong to it; ``external`` has the hash of each, by its path from
            that folder.

    Raises:
        ResourceError: A file cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found: dict[str, Any] = {
                "name": path.name,
                "bytes": os.fstat(file.fileno()).st_size,
                "sha256": digest,
            }
    except OSError as error:
        raise ResourceError(f"cannot read '{shown(path)}': {error.strerror or error}") from error
    if external:
        base = path.parent.resolve()
        found["external"] = {each.resolve().relative_to(base).as_posix(): sha256(each) for each in external}
    return found


def sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal, read in chunks.

    Raises:
        ResourceError: The file cannot be read.
    """
    return str(file_record(path)["sha256"])


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder.

    Raises:
        ResourceError: A file cannot be read.
    """
    if not path.is_dir():
        return sha256(path)
    digest = hashlib.sha256()
    for top, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(top) / name
            if file.is_file():
                digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\0".encode("utf-8", "replace"))
    return digest.hexdigest()


def outputs_of(output: Path, *, html: bool = False) -> list[Path]:
    """Every file that a transform may write for an artifact: its data, itself, its reports in JSON and Markdown.

    Args:
        output: The artifact.
        html: Whether the report is written as a page for the browser too.
    """
    stem = output.name.removesuffix(".onnx")
    ends = ("report.json", "report.md", *(["report.html"] if html else []))
    return [
        output.with_name(f"{output.name}.data"),
        output,
        *(output.with_name(f"{stem}.{end}") for end in ends),
    ]


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, force: bool) -> None:
    """Refuse outputs that would overwrite something, before any work is done.

    Args:
        outputs: Files that are going to be written.
        inputs: Files that are read; none of them may be an output, by any name or link, even with force.
        force: Whether existing outputs may be replaced.

    Raises:
        UsageError: An output is an input, a folder, named twice, or exists while ``force`` is off.
    """
    seen: dict[str, Path] = {}
    for output in outputs:
        for given in inputs:
            if _is_same(output, given):
                raise UsageError(
                    f"the output '{shown(output)}' is the input '{shown(given)}'",
                    "choose another name with -o",
                )
        if output.is_dir():
            raise UsageError(f"the output '{shown(output)}' is a folder", "name a file with -o")
        if seen.setdefault(os.path.realpath(output), output) is not output:
            raise UsageError(f"two outputs would be written to '{shown(output)}'", "choose another name with -o")
    existing = [output for output in outputs if os.path.lexists(output)]
    if existing and not force:
        raise exists_error(existing)


def _is_same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def json_bytes(obj: object) -> bytes:
    """A JSON document: keys in their given order, two spaces, a newline at the end.

    NaN and infinities, which JSON lacks, become null. Paths become text and numpy scalars plain numbers.

    Raises:
        TypeError: The object holds something that JSON cannot express.
    """
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Names of files may hold bytes that are no UTF-8; "\udc80" is how JSON spells those.
    return text.encode("utf-8", "backslashreplace")


def write_json(path: Path, obj: object) -> None:
    """Write a JSON file in one step; see ``json_bytes``.

    Within a Staging block write ``json_bytes`` to its path instead: an error then names the folder that it is for.

    Raises:
        ResourceError: The file cannot be written; an old one is intact.
        TypeError: The object holds something that JSON cannot express.
    """
    content = json_bytes(obj)
    with Staging(path.parent) as stage:
        stage.path(path.name).write_bytes(content)
        stage.publish([path.name], force=True)


def _plain(obj: object) -> object:
    if isinstance(obj, Mapping):
        return {key if isinstance(key, str) else str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Path):
        return str(obj)
    if hasattr(obj, "dtype") and getattr(obj, "shape", None) == ():
        return _plain(obj.item())  # type: ignore[attr-defined]
    return obj
