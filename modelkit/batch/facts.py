"""Hashes of what a result depends on and of what was written, for the journal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelkit.files import sha256


def facts_of(model: Path, external: Sequence[Path], written: Sequence[Path]) -> dict[str, Any]:
    """Hashes for the journal.

    Args:
        model: The model's file.
        external: Its external data, in its folder or below.
        written: The files of the result, all in one folder.

    Returns:
        ``sha256`` of the model; ``external`` and ``files``: the hash of each file, by its path below the model's
        folder and by its name.

    Raises:
        ResourceError: A file cannot be read.
    """
    base = model.parent.resolve()
    return {
        "sha256": sha256(model),
        "external": {path.resolve().relative_to(base).as_posix(): sha256(path) for path in external},
        "files": {path.name: sha256(path) for path in written},
    }
