"""Files of one machine under the same names on another: what tells them apart, and how names are put back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 16 << 20  # bytes of a file that travel at a time


@dataclass(frozen=True)
class Order:
    """A task as it is sent to another machine; every path in it is absolute, as on the machine that sends.

    Attributes:
        entry: See ``Task``.
        payload: See ``Task``.
        seconds: Time limit.
        memory_bytes: Memory limit.
        here: The current folder.
        reads: For each file or folder that is read, what it looks like (see ``looks``).
        writes: The folder of results; None where nothing is written.
        stage: A folder that was made just for this task, where results go if the worker sees it.
        there: Files that exist in the folder of results, with the content of those that may be read.
    """

    entry: str
    payload: Mapping[str, Any]
    seconds: float | None
    memory_bytes: int | None
    here: str
    reads: Mapping[str, str]
    writes: str | None
    stage: str | None
    there: Mapping[str, bytes]


def absolute(path: Path | str) -> str:
    """A path from the root; links in it stay."""
    return os.path.abspath(path)  # noqa: PTH100


def looks(path: str) -> str:
    """What tells a file or folder from another under the same name: sizes and times; empty where there is none.

    Two machines that see the same here see the same file: by a network file system, or because one is a copy.
    """
    try:
        if not os.path.isdir(path):  # noqa: PTH112
            return _mark(path)
        lines = sorted(f"{os.path.relpath(file, path)}\0{_mark(file)}" for file in files_below(path))
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    except OSError:
        return ""


def files_below(path: str) -> Iterator[str]:
    """A file itself, or every file below a folder."""
    if not os.path.isdir(path):  # noqa: PTH112
        yield path
        return
    for top, _, names in os.walk(path):
        for name in names:
            file = os.path.join(top, name)  # noqa: PTH118 - text in, text out
            if os.path.isfile(file):  # noqa: PTH113
                yield file


def _mark(path: str) -> str:
    info = os.stat(path)  # noqa: PTH116
    return f"{info.st_size} {info.st_mtime_ns}"


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def with_paths(value: Any, change: Callable[[Path], Path]) -> Any:
    """Plain values with every Path in them changed."""
    if isinstance(value, Path):
        return change(value)
    if isinstance(value, Mapping) and type(value) is dict:
        return {key: with_paths(each, change) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(with_paths(each, change) for each in value)
    return value


def moved(path: Path, places: Mapping[str, str]) -> Path:
    """A path in its new place, if it or a folder above it has one."""
    text = absolute(path)
    for old in sorted(places, key=len, reverse=True):
        if is_below(text, old):
            return Path(places[old] + text[len(old) :])
    return path


def renamed(value: Any, names: Iterable[tuple[str, str]]) -> Any:
    """Plain values in which files have other names, in Paths as in messages.

    Args:
        value: Text, numbers, Paths, and lists and dicts of them.
        names: Old names and new ones; longer ones are looked for first.
    """
    ordered = sorted(names, key=lambda pair: -len(pair[0]))

    def change(text: str) -> str:
        for old, new in ordered:
            text = text.replace(old, new)
        return text

    def walk(each: Any) -> Any:
        if isinstance(each, str) and type(each) is str:
            return change(each)
        if isinstance(each, Path):
            return Path(change(str(each)))
        if type(each) is dict:
            return {key: walk(inner) for key, inner in each.items()}
        if type(each) in (list, tuple):
            return type(each)(walk(inner) for inner in each)
        return each

    return walk(value)
