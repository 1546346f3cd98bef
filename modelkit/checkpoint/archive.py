"""The zip archives that torch writes, checked as a whole before anything in them is read."""

from __future__ import annotations

import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelkit.errors import ModelError, UnsafeError
from modelkit.files import shown

_MOST_MEMBERS = 200_000
_LOCAL_HEADER = 30
_MOST_UNPACKED = 1 << 26
_CUT = "the download or copy was cut off, or the file is damaged"


@dataclass(frozen=True)
class Member:
    """One file in the archive.

    Attributes:
        name: Its name without the folder that torch puts everything into.
        start: Where its bytes start in the archive's file.
        size: How many there are; nothing is compressed.
    """

    name: str
    start: int
    size: int


def members(path: Path, *, compressed: bool = False) -> dict[str, Member]:
    """List what a torch archive holds, by name without the common folder.

    torch stores everything uncompressed, in one folder, each name once. Whatever differs was made by something
    else, perhaps to be read by one program in one way and by another in another.

    Args:
        path: The archive.
        compressed: Whether members may be deflated, as TorchScript's code is; then up to 64 MB in all.

    Raises:
        ModelError: The archive is truncated or damaged.
        UnsafeError: It is compressed or encrypted, a name occurs twice or leads elsewhere, there are several
            folders, or members overlap.
    """
    name = shown(path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            comment, directory = archive.comment, archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise ModelError(f"'{name}' is a truncated or damaged archive", _CUT) from error
    if comment or not infos or len(infos) > _MOST_MEMBERS:
        raise UnsafeError(f"'{name}' is not an archive as torch writes them", "save it again with torch")
    return _checked(path, infos, directory, compressed)


def _checked(path: Path, infos: list[zipfile.ZipInfo], directory: int, compressed: bool) -> dict[str, Member]:
    name = shown(path.name)
    found: dict[str, Member] = {}
    folders = {info.filename.partition("/")[0] for info in infos}
    if len(folders) > 1 and not any("/" not in info.filename for info in infos):
        raise UnsafeError(f"'{name}' holds several folders; torch writes one", "save it again with torch")
    if min(info.header_offset for info in infos):
        # What zipfile found is an archive inside this one, whose own end is missing.
        raise ModelError(f"'{name}' is a truncated or damaged archive", _CUT)
    end = unpacked = 0
    with path.open("rb") as file:
        for info in sorted(infos, key=lambda each: each.header_offset):
            parts = info.filename.split("/")
            if info.filename.startswith("/") or "\\" in info.filename or ".." in parts or "\0" in info.filename:
                raise UnsafeError(f"'{name}' holds a member named '{shown(info.filename)[:200]}'")
            stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
            unpacked += 0 if stored else info.file_size
            if not stored and not (compressed and unpacked <= _MOST_UNPACKED):
                raise UnsafeError(
                    f"'{name}' holds compressed data, '{shown(info.filename)[:200]}'; torch stores it as it is",
                    "what unpacks to more than the file itself is not read; save it again with torch",
                )
            if info.flag_bits & 1:
                raise UnsafeError(f"'{name}' is encrypted")
            start = _data_start(file, info, name)
            if info.header_offset < end or start + info.compress_size > directory:
                raise UnsafeError(f"the members of '{name}' overlap", "save it again with torch")
            end = start + info.compress_size
            inner = info.filename.partition("/")[2] or info.filename
            if inner in found:
                raise UnsafeError(f"'{name}' holds '{shown(inner)[:200]}' twice")
            found[inner] = Member(inner, start, info.file_size)
    return found


def _data_start(file: BinaryIO, info: zipfile.ZipInfo, name: str) -> int:
    """Where a member's bytes start; its own header must agree with the archive's list."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise ModelError(f"'{name}' is a truncated or damaged archive", _CUT)
    length, extra = struct.unpack("<HH", header[26:30])
    own = file.read(length)
    if (
        own.decode("utf-8", "replace") != info.orig_filename
        or struct.unpack("<H", header[8:10])[0] != info.compress_type
    ):
        raise UnsafeError(f"'{name}' lists '{shown(info.filename)[:200]}' and holds something else")
    return int(info.header_offset) + _LOCAL_HEADER + length + extra


def content(path: Path, member: Member) -> bytes:
    """Read one member whole."""
    with path.open("rb") as file:
        file.seek(member.start)
        return file.read(member.size)


def size_of(path: Path) -> int:
    """Bytes of a file."""
    return os.stat(path).st_size  # noqa: PTH116 - one call less than Path's
