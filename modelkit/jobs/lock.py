"""One run at a time in one output folder: a lock that ends with its process, and says who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from modelkit.errors import ResourceError, UsageError
from modelkit.staging import is_alive, shown, write_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_WAIT = 30.0  # seconds for the workers of a killed run to end


class FolderLock:
    """Holds a folder for one run, as long as the block lasts or the process lives.

    Processes that inherit ``descriptor`` hold the folder too: the workers of a killed run may be in the middle of
    writing to a slow disk, which even SIGKILL cannot interrupt. The next run waits for them.

    ``flock`` does it where the file system has it: the system frees the lock of a process that dies, however it
    dies. Elsewhere the lock file's content decides: a process of this host that is gone holds nothing, one of
    another host is believed.

    Args:
        path: The lock file, within a folder that exists. It stays there, empty, afterwards.
        folder: What to call the locked folder in an error.

    Raises:
        UsageError: Another run holds it; the message says which process, on which host, since when.
        ResourceError: The file cannot be written.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder
        self._file: int | None = None

    @property
    def descriptor(self) -> int:
        """The open lock file."""
        assert self._file is not None, "the folder is not locked"
        return self._file

    def __enter__(self) -> FolderLock:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise write_error(self._path.parent, error) from error
        try:
            self._take(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _signature(), 0)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise ResourceError(f"cannot lock '{shown(self._folder)}': {error.strerror}") from error
            raise
        self._file = descriptor
        return self

    def _take(self, descriptor: int) -> None:
        holder = _read(descriptor)
        if fcntl is not None:
            deadline = time.monotonic() + _WAIT
            try:
                while not _try_flock(descriptor):
                    holder = _read(descriptor)
                    if not _is_gone(holder) or time.monotonic() > deadline:
                        raise self._taken(holder, "wait for it to end, or choose another folder with -o")
                    time.sleep(0.02)
                return
            except OSError:  # a file system without locks
                pass
        if holder and not _is_gone(holder):
            raise self._taken(holder, f"if it does not run any more, remove '{shown(self._path)}'")

    def _taken(self, holder: dict[str, object], hint: str) -> UsageError:
        who = "another run of modelkit"
        if holder:
            who += f": process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        return UsageError(f"the folder '{shown(self._folder)}' is in use by {shown(who)}", hint)

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signature() -> bytes:
    since = datetime.now(UTC).astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()


def _read(descriptor: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_gone(holder: dict[str, object]) -> bool:
    """Whether the process that wrote a lock is known not to run any more."""
    pid = holder.get("pid")
    return holder.get("host") == socket.gethostname() and isinstance(pid, int) and not is_alive(pid)
