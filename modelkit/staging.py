"""Write files all or none: a hidden folder beside the target, renames, and a journal that survives a kill."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from modelkit.errors import ResourceError, UnsafeError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_OLD_ENOUGH_S = 60.0


def shown(path: Path | str) -> str:
    """A path as it can be printed on one line: control characters and broken bytes are escaped."""
    text = str(path)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def exists_error(paths: Sequence[Path]) -> UsageError:
    """The error for outputs that are there already."""
    names = ", ".join(f"'{shown(path)}'" for path in paths)
    hint = "--force replaces what is there, -o chooses another name"
    return UsageError(f"{names} {'exists' if len(paths) == 1 else 'exist'} already", hint)


class Staging:
    """A hidden folder beside the target in which outputs are made, checked, and then renamed into place.

    ``with Staging(folder) as stage: write(stage.path("m.onnx")); stage.publish(["m.onnx"], force=False)``

    Whatever ends the block early, interrupts included, the folder is removed and the target is as before. A
    killed process leaves the hidden folder behind: the next one that writes there removes it and, where the
    kill fell between the renames of a set, first puts the old set back.

    Args:
        folder: Where the outputs go; it is made, with its parents, if it does not exist.

    Raises:
        ResourceError: The folder cannot be made or written, or there is no space left anywhere in the block.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._target = Path(os.path.abspath(folder))  # noqa: PTH100 - links in it are meant to stay
        self._stage = self._target / f".modelkit-{os.getpid()}-{secrets.token_hex(4)}"
        self._made: list[Path] = []
        self._lock: int | None = None

    def __enter__(self) -> Staging:
        try:
            for parent in [*reversed(self._target.parents), self._target]:
                if not parent.is_dir():
                    parent.mkdir(exist_ok=True)
                    self._made.append(parent)
            _sweep(self._target)
            self._stage.mkdir(mode=0o700)
            self._lock = hold(self._stage, create=True)
            (self._stage / "new").mkdir()
            (self._stage / "old").mkdir()
        except BaseException as error:
            self._remove()
            if isinstance(error, OSError):
                raise write_error(self.folder, error) from error
            raise
        return self

    def path(self, name: str) -> Path:
        """Where to write the output of that name until it is published.

        Raises:
            UnsafeError: The name is not one plain file name.
        """
        if not _is_plain(name):
            raise UnsafeError(f"the output name '{shown(name)}' is not a plain file name")
        return self._stage / "new" / name

    def publish(self, names: Sequence[str], *, force: bool) -> list[Path]:
        """Move finished outputs into the target folder, all or none, in the order given.

        Give data files before the model that needs them, and reports last. Every file is flushed to the disk
        before the first is moved.

        Args:
            names: Names that were written through ``path``.
            force: Whether files that exist may be replaced. Without it, a file that another process put there
                at the last moment is not replaced either.

        Returns:
            The paths in the target folder, in the same order.

        Raises:
            UsageError: An output exists already (and ``force`` is off) or is a folder.
            ResourceError: The disk is full or refuses; the old files are intact.
        """
        try:
            self._publish(names, force=force)
        except OSError as error:
            raise write_error(self.folder, error) from error
        self._made = []
        return [self.folder / name for name in names]

    def _publish(self, names: Sequence[str], *, force: bool) -> None:
        marks: dict[str, list[int]] = {}
        for name in names:
            staged, target = self.path(name), self._target / name
            _sync(staged)
            marks[name] = mark_of(staged)
            if os.path.lexists(target):
                if not force:
                    raise exists_error([self.folder / name])
                if target.is_dir():
                    raise UsageError(f"the output '{shown(self.folder / name)}' is a folder", "remove it first")
                # A link, not a move: at no time is the name without a file.
                keep(target, self._stage / "old" / name)
        _sync(self._stage / "old")
        journal = self._stage / "journal.json"
        draft = self._stage / "journal.new"
        draft.write_text(json.dumps(marks), encoding="utf-8")
        _sync(draft)
        try:
            draft.replace(journal)
            _sync(self._stage)
            for name in names:
                self._place(name, force=force)
            _sync(self._target)
            journal.unlink()  # from here on the new set is the one that counts
        except BaseException:
            _roll_back(self._stage)
            raise

    def _place(self, name: str, *, force: bool) -> None:
        staged, target = self._stage / "new" / name, self._target / name
        if force:
            staged.replace(target)
            return
        try:
            _link(staged, target)  # unlike a rename, this fails where the name is taken
        except FileExistsError as error:
            raise exists_error([self.folder / name]) from error
        except (OSError, NotImplementedError) as error:  # a file system without hard links
            if os.path.lexists(target):
                raise exists_error([self.folder / name]) from error
            staged.rename(target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._remove()
        except KeyboardInterrupt:  # a second Ctrl-C, while cleaning up
            self._remove()
            raise
        except OSError as failure:
            raise ResourceError(
                f"cannot put the old files back in '{shown(self.folder)}': {failure.strerror or failure}",
                f"they are kept in '{shown(self._stage / 'old')}'",
            ) from failure
        full = _space_error(error) if isinstance(error, Exception) else None
        if full is not None and not isinstance(error, _NoSpaceError):
            raise write_error(self.folder, full) from error

    def _remove(self) -> None:
        """Undo a publish that did not finish, then remove the staging folder and folders made for nothing."""
        try:
            if os.path.lexists(self._stage):
                _roll_back(self._stage)
                shutil.rmtree(self._stage, ignore_errors=True)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()


def write_error(folder: Path, error: OSError) -> ResourceError:
    """The error for a folder of outputs that cannot be written."""
    name = shown(folder)
    hint = "nothing was changed; free some space there or choose another folder with -o"
    if error.errno == errno.EFBIG:
        return _NoSpaceError(f"a file grew larger than the limits of '{name}' allow", hint)
    if _space_error(error):
        return _NoSpaceError(f"no space left on the disk of '{name}'", hint)
    reason = (error.strerror or str(error)) + (f": '{shown(str(error.filename))}'" if error.filename else "")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        reason = "it, or one above it, is a file"
    return ResourceError(f"cannot write in the folder '{name}': {reason}", "choose another folder with -o")


class _NoSpaceError(ResourceError):
    """No space left, said in a person's words already."""


def _space_error(error: BaseException | None) -> OSError | None:
    """The error of a full disk among an exception and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        if os.strerror(errno.ENOSPC) in str(error):  # native code that writes has its own classes
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _is_plain(name: str) -> bool:
    return name not in ("", "..") and Path(name).name == name and "\0" not in name


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(source: Path, target: Path) -> None:
    """Give a file (or a symbolic link itself) a second name; fails where that is taken."""
    follow = os.link not in os.supports_follow_symlinks
    os.link(source, target, follow_symlinks=follow)


def keep(source: Path, target: Path) -> None:
    """Keep a file under a second name, by a hard link or, where there are none, by a copy."""
    target.unlink(missing_ok=True)
    try:
        _link(source, target)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)
        if not target.is_symlink():
            _sync(target)


def mark_of(path: Path) -> list[int]:
    """What tells a file that was just written from any other under its name; renaming keeps it."""
    info = path.lstat()
    return [info.st_ino, info.st_size, info.st_mtime_ns]


def _read_journal(stage: Path) -> dict[str, list[int]]:
    """Names and marks of a publish that has begun and not ended; empty where there is none.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        with (stage / "journal.json").open("rb") as file:
            marks = json.loads(file.read(1 << 20))
    except (FileNotFoundError, ValueError, RecursionError):  # ours is never damaged: it is renamed into place
        return {}
    return {name: mark for name, mark in marks.items() if _is_plain(name)} if isinstance(marks, dict) else {}


def _is_published(target: Path, mark: list[int]) -> bool:
    return os.path.lexists(target) and mark_of(target) == mark


def _roll_back(stage: Path) -> None:
    """Put the old set back where a publish has begun and not ended. May be repeated.

    A target that is not what the publish put there is left alone.
    """
    marks = _read_journal(stage)
    for name, mark in reversed(marks.items()):
        target, old = stage.parent / name, stage / "old" / name
        if not _is_published(target, mark):
            continue
        if os.path.lexists(old):
            old.replace(target)
        else:
            target.unlink()
    if marks:
        _sync(stage.parent)
        (stage / "journal.json").unlink()


def hold(folder: Path, *, create: bool) -> int | None:
    """Lock a staging or temporary folder for as long as this process lives, by a file in it.

    Args:
        folder: The folder.
        create: Whether to make the lock file.

    Returns:
        What to close to free it; None where the file system has no locks, or there is no lock file.

    Raises:
        BlockingIOError: Another process holds it.
    """
    if fcntl is None:
        return None
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(folder / "lock", flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def clean_up(folder: Path) -> None:
    """Remove at once what killed processes left in a folder, instead of when the next output is written there.

    Where a kill fell between the renames of a set, the old set is put back first. What a living process holds is
    left alone; so is a folder that does not exist.
    """
    with suppress(OSError):
        _sweep(folder, patient=False)


def _sweep(folder: Path, *, patient: bool = True) -> None:
    """Clean up after killed processes: staging folders that nobody holds, and that had time to be locked."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.startswith(".modelkit-"))
    for name in names:
        match = re.fullmatch(r"\.modelkit-(\d{1,10})-[0-9a-z]+", name)
        if match:
            with suppress(OSError):
                _sweep_one(folder / name, int(match.group(1)), patient=patient)


def _sweep_one(stage: Path, pid: int, *, patient: bool) -> None:
    info = stage.lstat()
    if not stat.S_ISDIR(info.st_mode) or (hasattr(os, "geteuid") and info.st_uid != os.geteuid()):
        return
    young = patient and abs(time.time() - info.st_mtime) < _OLD_ENOUGH_S
    marks = _read_journal(stage)
    # The lock is taken a moment after the folder is made, and the journal long after that.
    if young and not marks:
        return
    lock = hold(stage, create=False)
    try:
        # Process numbers mean little between containers, so they decide only where there is no lock.
        if lock is None and (young or is_alive(pid)):
            return
        # Where the kill came after the last rename, the new set is complete and stays.
        if not all(_is_published(stage.parent / name, mark) for name, mark in marks.items()):
            _roll_back(stage)
        shutil.rmtree(stage, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; where that cannot be asked, it is taken to."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
