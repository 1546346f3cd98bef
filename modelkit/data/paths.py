"""Lists a data folder without being led out of it."""

from __future__ import annotations

from pathlib import Path

from modelkit.errors import DataError, UnsafeError


def entries(folder: Path, base: Path | None = None) -> list[Path]:
    """Return what is in a folder, sorted by name, hidden entries left out.

    Args:
        folder: The folder.
        base: The data set's top folder, which links must not leave; `folder` itself by default.

    Raises:
        UnsafeError: An entry is a link to somewhere outside `base`.
        PermissionError: The folder may not be read.
        DataError: The folder cannot be read, or a link leads nowhere or in a circle.
    """
    top = (base or folder).resolve()
    try:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except PermissionError:
        raise
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    for entry in found:
        if not entry.is_symlink():
            continue
        try:
            target = entry.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{entry} is a link that leads nowhere", hint="remove it") from error
        if not target.is_relative_to(top):
            raise UnsafeError(f"{entry} is a link out of the data folder", hint="put the file itself into the folder")
    return found
