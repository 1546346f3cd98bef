"""ExportedProgram files: what torch would run while it loads one is looked for first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import UnsafeError
from modelkit.files import shown

if TYPE_CHECKING:
    import torch


def load(path: Path, *, trust: bool) -> tuple[torch.export.ExportedProgram, bool]:
    """Load an ExportedProgram."""
    import torch

    if not trust:
        raise UnsafeError(f"'{shown(path.name)}' needs --trust")
    return torch.export.load(path), True
