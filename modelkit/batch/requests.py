"""Makes the request for a run over a folder from what a command was given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modelkit.batch.find import MODELS, WEIGHTS
from modelkit.batch.options import FolderOptions
from modelkit.batch.plan import Request
from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.outputs import outputs_for
from modelkit.config.resolve import Resolved
from modelkit.errors import ResourceError, UsageError
from modelkit.files import shown
from modelkit.jobs.protocol import Limits

ENTRY = "modelkit.task:perform"
# What a worker imports before its first model: all that the command needs.
_WARM = {
    "quantize": ("modelkit.transform.pipeline", "modelkit.quantize.auto", "onnxruntime"),
    "prune": ("modelkit.transform.pipeline", "modelkit.prune.auto", "onnxruntime"),
    "pack": ("modelkit.transform.pipeline", "modelkit.pack.auto", "onnxruntime"),
    "compress": ("modelkit.transform.pipeline", "modelkit.compress.auto", "onnxruntime"),
    "distill": ("modelkit.transform.pipeline", "modelkit.distill.auto", "onnxruntime"),
    "run": ("modelkit.recipe.run", "onnxruntime"),
    "inspect": ("modelkit.graph.facts", "modelkit.graph.load", "modelkit.measure.size"),
    "evaluate": ("modelkit.compare.compare", "onnxruntime"),
}
_DOCUMENTS = {"inspect": "inspection", "evaluate": "comparison"}


def make_request(
    command: str,
    models: Path,
    output: Path | None,
    *,
    given: Mapping[str, Any],
    options: FolderOptions,
    aside: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Path] | None = None,
    artifact_name: Callable[[Path], str] | None,
    writes_back: bool = False,
    resume: bool,
    force: bool,
) -> Request:
    """Put a request together.

    Args:
        command: Name of the command.
        models: The folder of models.
        output: The folder of results.
        given: Arguments of the command's function; None is left out. A Path is something that results depend on.
        options: Options of the run.
        aside: Further arguments of the function, which change no result.
        inputs: What results depend on beside the arguments, by what to call it.
        artifact_name: The name of a model's artifact, for commands that make one.
        writes_back: Whether the command writes state dicts back.
        resume: Whether to leave alone what is done and unchanged.
        force: Whether to replace what is there.

    Raises:
        UsageError: There is no such folder, the command takes none, an output is missing or is the folder itself,
            or data does not exist.
        ResourceError: The folder cannot be looked at.
    """
    if command not in _WARM:
        raise UsageError(f"'{shown(command)}' takes no folder", f"commands that do: {', '.join(_WARM)}")
    _check_folders(models, output, needed=artifact_name is not None or resume)
    arguments = {key: value for key, value in given.items() if value is not None}
    if arguments.get("html") and output is None:
        raise UsageError("--html needs a folder for the pages", "name one with -o")
    for value in [*arguments.values(), *(inputs or {}).values()]:
        if isinstance(value, Path) and not os.path.lexists(value):
            raise UsageError(f"'{shown(value)}' does not exist")
    config = arguments.get("config")
    return Request(
        command=command,
        models=models,
        output=output,
        entry=ENTRY,
        html=bool(arguments.get("html")),
        name_of=artifact_name or partial(_document_name, _DOCUMENTS.get(command, "")),
        files_of=partial(
            _documents if artifact_name is None else _artifact,
            loading=arguments.get("loading", Loading()),
            writes_back=writes_back,
            html=bool(arguments.get("html")),
        ),
        arguments=arguments,
        aside=aside or {},
        inputs=inputs or {},
        config=config.value.model_dump(mode="json") if isinstance(config, Resolved) else {},
        transforms=artifact_name is not None,
        # Weights alone can be looked at; for all else one must know what they belong to.
        kinds=MODELS | WEIGHTS if command == "inspect" or "loading" in arguments else MODELS,
        match=options.match,
        skip=options.skip,
        on=options.on,
        workers=options.workers,
        cpus=options.cpus,
        gpus=options.gpus or 0,
        limits=Limits(options.timeout, None if options.memory is None else int(options.memory)),
        resume=resume,
        force=force,
        warm=("modelkit.task", *_WARM[command]),
    )


def _check_folders(models: Path, output: Path | None, *, needed: bool) -> None:
    try:
        if not models.is_dir():
            raise UsageError(f"'{shown(models)}' is not a folder")
        if output is None:
            if needed:
                raise UsageError("a folder of models needs a folder for the results", "name one with -o")
            return
        if output.resolve() == models.resolve():
            raise UsageError(
                f"the output '{shown(output)}' is the folder of the models", "choose another folder with -o"
            )
        if output.exists() and not output.is_dir():
            raise UsageError(f"the output '{shown(output)}' is a file", "a folder of models needs a folder with -o")
    except OSError as error:
        raise ResourceError(f"cannot look at '{shown(models)}': {error.strerror}") from error


def _document_name(kind: str, model: Path) -> str:
    return f"{model.stem}.{kind}.json"


def _documents(
    model: Path, output: Path, *, loading: Loading, writes_back: bool, html: bool
) -> tuple[Path, list[Path]]:
    return output, [output, *([output.with_suffix(".html")] if html else [])]


def _artifact(
    model: Path, output: Path, *, loading: Loading, writes_back: bool, html: bool
) -> tuple[Path, list[Path]]:
    found = outputs_for(model, output, loading, writes_back=writes_back, html=html)
    return found.artifact, found.files
