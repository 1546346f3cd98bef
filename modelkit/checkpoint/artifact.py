"""The changed state dict that is written beside the ONNX artifact, with the plan of what changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.checkpoint.outputs import Outputs
from modelkit.checkpoint.source import Source
from modelkit.checkpoint.write_back import Kept, write_back
from modelkit.errors import ModelError
from modelkit.files import Staging, write_json
from modelkit.graph.load import load

if TYPE_CHECKING:
    import onnx_ir as ir


def write_beside(
    source: Source, stage: Staging, outputs: Outputs, before: ir.Model, artifact: Path, kept: Kept | None = None
) -> tuple[list[str], str]:
    """Write the state dict with the artifact's changes, and the plan.

    Args:
        source: Where the model came from.
        stage: Where to write.
        outputs: What the artifact's files are called.
        before: The graph before it was changed, after ``normalise``.
        artifact: The changed graph's file.
        kept: What is left of each initializer that was cut, see ``write_back``.

    Returns:
        Names of the files written, and a note where the changes cannot be written into a state dict.
    """
    if source.container is None or outputs.state is None or outputs.plan is None:
        return [], ""
    state, plan = outputs.state.name, outputs.plan.name
    try:
        done = write_back(source.container, stage.path(state), before, load(artifact).model, kept)
    except ModelError as error:
        return [], f"no state dict was written: {error.message}"
    write_json(stage.path(plan), {"artifact": state, **done})
    return [state, plan], f"{state} is the state dict with the same changes"
