"""A file of JSON lines that only grows: each is on the disk before work goes on, and a torn last one is dropped."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelkit.errors import ResourceError, UsageError
from modelkit.staging import shown

SCHEMA = "modelkit.journal/1"


def read(path: Path) -> list[dict[str, Any]]:
    """Read what a journal holds, in order; nothing where there is none.

    A line that was cut off by a kill, a full disk or a lost connection is left out.

    Raises:
        UsageError: It is a journal of another version, or no journal.
        ResourceError: It cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResourceError(f"cannot read '{shown(path)}': {error.strerror}") from error
    lines = [found for line in data.split(b"\n")[:-1] if (found := _parsed(line)) is not None]
    if not lines:
        return []
    if lines[0].get("schema") != SCHEMA:
        raise UsageError(
            f"'{shown(path)}' is not a journal that this version can read",
            "--force begins anew; or choose another folder with -o",
        )
    return lines[1:]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class Journal:
    """Writes a journal; to be used in a ``with`` block.

    Args:
        path: The file, in a folder that exists.
        fresh: Whether to begin anew; else what is there is kept and gone on with.

    Raises:
        ResourceError: The disk is full or refuses.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self._path, self._fresh = path, fresh
        self._file = -1

    def __enter__(self) -> Journal:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            self._file = os.open(self._path, flags, 0o644)
            end = 0 if self._fresh else _whole(self._file)
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
        except OSError as error:
            raise self._error(error) from error
        if end == 0:
            self.append({"schema": SCHEMA})
        return self

    def append(self, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Write one line.

        Args:
            record: What JSON can hold.
            sync: Whether to wait until this line and those before are on the disk. Without, they survive a kill of
                this process but perhaps no power cut.

        Raises:
            ResourceError: The disk is full or refuses; what was cut off is dropped by the next reader.
        """
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            if sync:
                os.fsync(self._file)
        except OSError as error:
            raise self._error(error) from error

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            os.close(self._file)

    def _error(self, error: OSError) -> ResourceError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "no space left on its disk" if full else error.strerror
        return ResourceError(
            f"cannot write the journal '{shown(self._path)}': {reason}",
            "what is finished is kept: --resume goes on from there",
        )


def _whole(descriptor: int) -> int:
    """Length of a file up to the end of its last whole line."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 65536)
        last = os.pread(descriptor, end - start, start).rfind(b"\n")
        if last >= 0:
            return start + last + 1
        end = start
    return 0
