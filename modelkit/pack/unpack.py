"""Writes a packed model with plain weights."""

from __future__ import annotations

from pathlib import Path

from modelkit.errors import ModelError
from modelkit.files import Staging, check_outputs, shown
from modelkit.graph.load import load
from modelkit.graph.save import save
from modelkit.graph.verify import verify_same
from modelkit.progress import Progress, silent


def unpack_file(source: Path, target: Path, *, force: bool = False, progress: Progress = silent) -> int:
    """Write a model whose packed weights are plain initializers again, and compare the two.

    Args:
        source: The packed file.
        target: What to write.
        force: Whether to overwrite a file that exists.
        progress: Told how far the work is.

    Returns:
        How many weights were packed.

    Raises:
        ModelError: Nothing is packed, the file is damaged, or the two do not compute the same.
        UsageError: The target exists, or is the source.
    """
    check_outputs([target], [source], force=force)
    progress("reading", 0, 2)
    loaded = load(source)
    if not loaded.packed:
        raise ModelError(f"'{shown(source.name)}' has no packed weights", "modelkit pack makes such files")
    with Staging(target.parent) as stage:
        written = [path.name for path in save(loaded.model, stage.path(target.name))]
        progress("comparing", 1, 2)
        verify_same(source, stage.path(target.name), tolerance=0.0)
        stage.publish(written, force=force)
    progress("comparing", 2, 2)
    return len(loaded.packed)
