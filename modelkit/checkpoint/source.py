"""A model as the user named it, and the ONNX file that stands for it from there on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelkit.checkpoint.container import Container


@dataclass(frozen=True)
class Source:
    """Where a model came from.

    Attributes:
        path: The file that the user named.
        onnx: The ONNX file that everything downstream reads; the same file where that was named.
        kind: What the file is, in words.
        notes: What a reader of the report must know: trust that was given, the factory that was named.
        container: Writes changed weights back into a file like ``path``; None for ONNX and for formats whose
            program is part of the file.
    """

    path: Path
    onnx: Path
    kind: str = "ONNX model"
    notes: list[str] = field(default_factory=list)
    container: Container | None = None
