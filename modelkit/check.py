"""Whether a model file can be used at all: what `modelkit inspect --check` holds a commit against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.open import is_checkpoint, open_source
from modelkit.checkpoint.tell import is_state, tell
from modelkit.errors import ModelkitError, ResourceError
from modelkit.files import shown
from modelkit.graph.load import load
from modelkit.runtime import make_session

SCHEMA = "modelkit.check/1"


@dataclass(frozen=True)
class Problem:
    """Something that keeps a model from being used.

    Attributes:
        message: What, in one line that names the file.
        hint: What to do about it.
        known: False where it could not be found out: a file that cannot be read, a machine that is full.
    """

    message: str
    hint: str | None = None
    known: bool = True


def problems_of(path: Path, loading: Loading = Loading()) -> list[Problem]:  # noqa: B008 - frozen
    """Look for whatever keeps a model from being used.

    The file must be a model and no Git LFS pointer, whole, with its external data beside it; it must be valid by
    ONNX's own checker, and load in onnxruntime. Of weights without an architecture only the container is checked.

    Args:
        path: The file.
        loading: How a checkpoint is read; without inputs or an architecture only its weights are.

    Returns:
        The problems; none where the model can be used.
    """
    try:
        # What is said of checkpoints is not said of the ONNX files beside them.
        mine = loading if is_checkpoint(path) else Loading()
        if mine.arch is None and not mine.inputs and is_state(path):
            tell(path, trust=mine.trust)
            return []
        with open_source(path, mine) as source:
            load(source.onnx)
            return [*_invalid(source.onnx, path), *_refused(source.onnx, path)]
    except ModelkitError as error:
        return [_problem(error, path)]


def _invalid(onnx_file: Path, path: Path) -> list[Problem]:
    """What ONNX's checker has against a model."""
    import onnx

    try:
        onnx.checker.check_model(str(onnx_file))
    except Exception as error:  # it raises several classes, of C++ too
        said = shown(" ".join(str(error).split()))
        return [Problem(f"'{shown(path)}' is not valid ONNX: {said[:300]}", "export it again")]
    return []


def _refused(onnx_file: Path, path: Path) -> list[Problem]:
    """What onnxruntime has against a model."""
    try:
        make_session(onnx_file)
    except ModelkitError as error:
        return [_problem(error, path)]
    return []


def _problem(error: ModelkitError, path: Path) -> Problem:
    message = shown(error.message)
    # Some errors name the file without its folder, and some only what is wrong in it.
    if shown(path) not in message:
        message = f"'{shown(path)}': {message}"
    return Problem(message, error.hint and shown(error.hint), not isinstance(error, ResourceError))
