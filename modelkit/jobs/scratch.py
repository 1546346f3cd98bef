"""A folder for the temporary files of workers, which goes with the run; that of a killed run goes with the next."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from modelkit.errors import ResourceError
from modelkit.staging import hold

_PREFIX = "modelkit-jobs-"


class Scratch:
    """The folder of one run, locked as long as its process lives.

    Args:
        parent: Where to make it; None for the system's folder of temporary files.

    Raises:
        ResourceError: It cannot be made (in ``open``).
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._lock: int | None = None

    def open(self) -> Path:
        """Make the folder, after removing those that nobody holds any more."""
        parent = self._parent or Path(tempfile.gettempdir())
        _sweep(parent)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self._lock = hold(self._folder, create=True)
        except OSError as error:
            raise ResourceError(f"cannot make a folder for temporary files: {error.strerror}") from error
        return self._folder

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        self._folder = self._lock = None


def empty(folder: Path) -> None:
    """Make a folder, without anything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)


def _sweep(parent: Path) -> None:
    """Remove folders of runs that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            info = folder.lstat()
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
                continue
            lock = hold(folder, create=False)
            if lock is not None:  # a folder without its lock file is being made at this moment
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
