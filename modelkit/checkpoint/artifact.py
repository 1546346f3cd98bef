"""The changed state dict that is written beside the ONNX artifact, with the plan of what changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.checkpoint.source import Source
from modelkit.checkpoint.write_back import Kept, write_back
from modelkit.errors import ModelError
from modelkit.files import Staging, write_json
from modelkit.graph.load import load

if TYPE_CHECKING:
    import onnx_ir as ir


def names_beside(source: Source, output: Path) -> list[Path]:
    """Files that ``write_beside`` writes for an artifact; none where the model came without a state dict."""
    if source.container is None:
        return []
    stem = output.name.removesuffix(".onnx")
    return [output.with_name(stem + source.container.suffix), output.with_name(f"{stem}.plan.json")]


def write_beside(
    source: Source, stage: Staging, output: Path, before: ir.Model, artifact: Path, kept: Kept | None = None
) -> tuple[list[str], str]:
    """Write the state dict with the artifact's changes, and the plan.

    Args:
        source: Where the model came from.
        stage: Where to write.
        output: The artifact's final path; the names are made from it.
        before: The graph before it was changed, after ``normalise``.
        artifact: The changed graph's file.
        kept: What is left of each initializer that was cut, see ``write_back``.

    Returns:
        Names of the files written, and a note where the changes cannot be written into a state dict.
    """
    paths = names_beside(source, output)
    if source.container is None:
        return [], ""
    try:
        plan = write_back(source.container, stage.path(paths[0].name), before, load(artifact).model, kept)
    except ModelError as error:
        return [], f"no state dict was written: {error.message}"
    write_json(stage.path(paths[1].name), {"artifact": paths[0].name, **plan})
    return [path.name for path in paths], f"{paths[0].name} is the state dict with the same changes"
