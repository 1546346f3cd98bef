"""What a run over a folder will do: which models, where the results go, and what makes two runs the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from modelkit.batch.find import MODELS, check_targets, find_models, mirrored
from modelkit.errors import UsageError
from modelkit.files import Kind, content_hash, shown
from modelkit.jobs.protocol import Limits
from modelkit.version import VERSION


@dataclass(frozen=True)
class Request:
    """A run over a folder, as it was asked for.

    Attributes:
        command: Name of the command that each model gets.
        models: The folder of models.
        output: The folder of results; None where results are only printed.
        entry: What a worker does with one model (see ``modelkit.jobs.protocol.Task``).
        arguments: What the command is given beside the model and its output; can be pickled. A Path among them is a
            file or folder that results depend on.
        aside: Further arguments, which change no result.
        inputs: Files and folders that results depend on beside the arguments, by what to call them.
        config: The resolved options as plain values, for the summary and to tell runs apart.
        name_of: The file name of a model's result, from the model's path.
        files_of: The result and every file that may be written for it, from the model's path and that by ``name_of``.
        html: Whether a page is written for each model, and an index.
        transforms: Whether the command makes artifacts: then it leaves alone what modelkit made.
        kinds: Formats that count as models.
        match: Globs of models to take.
        skip: Globs of models and folders to leave out.
        on: Where models are worked on (see ``modelkit.jobs.connect``); None for processes of this machine.
        workers: How many models at a time; None for one, or as many as a cluster has room for.
        cpus: Processors for each model; None for its share of this machine, or one of a cluster.
        gpus: Accelerators for each model, on a cluster.
        limits: What each model may use.
        resume: Whether to leave alone what is done and unchanged.
        force: Whether to replace what is there.
        warm: Modules that workers import before their first task.
    """

    command: str
    models: Path
    output: Path | None
    entry: str
    name_of: Callable[[Path], str]
    files_of: Callable[[Path, Path], tuple[Path, list[Path]]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    aside: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    html: bool = False
    transforms: bool = True
    kinds: frozenset[Kind] = MODELS
    match: Sequence[str] = ()
    skip: Sequence[str] = ()
    on: str | None = None
    workers: int | None = None
    cpus: float | None = None
    gpus: float = 0
    limits: Limits = field(default_factory=Limits)
    resume: bool = False
    force: bool = False
    warm: Sequence[str] = ()


@dataclass(frozen=True)
class Item:
    """One model of the folder.

    Attributes:
        name: Its path below the folder, with forward slashes.
        path: The model's file.
        output: Where its result goes; None where it is only printed.
        outputs: Every file that may be written for it.
    """

    name: str
    path: Path
    output: Path | None
    outputs: tuple[Path, ...] = ()


def plan(request: Request) -> tuple[list[Item], list[str]]:
    """Find the models and decide where their results go.

    Returns:
        The models, sorted, and what was left out.

    Raises:
        UsageError: There is no model, a glob fits nothing, or a result would take the place of a model.
        ResourceError: A folder cannot be read.
    """
    found = find_models(
        request.models,
        match=request.match,
        skip=request.skip,
        without=request.output,
        artifacts=not request.transforms,
        kinds=request.kinds,
    )
    items = [_item(request, model, target) for model, target in mirrored(found.models, request.name_of).items()]
    # Only then can a result meet a model: what lies in the folder of results is no model.
    if request.output is not None and request.models.resolve().is_relative_to(request.output.resolve()):
        check_targets(request.models, found.models, [output for item in items for output in item.outputs])
    return items, found.notes


def check_existing(items: Sequence[Item], request: Request) -> None:
    """Refuse to begin where results are there already, unless they may be replaced or gone on with.

    Raises:
        UsageError: They are there.
    """
    if request.force or request.resume:
        return
    existing = [output for item in items for output in item.outputs if os.path.lexists(output)]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            f"'{shown(existing[0])}'{more} {'exist' if more else 'exists'} already",
            "--resume does what is missing, --force does all anew, -o chooses another folder",
        )


def _item(request: Request, model: PurePosixPath, target: PurePosixPath) -> Item:
    path = request.models / model
    if request.output is None:
        return Item(str(model), path, None)
    output, files = request.files_of(path, request.output / target)
    return Item(str(model), path, output, tuple(files))


def key_of(request: Request) -> str:
    """What results depend on beside the model: two runs with the same key do the same with the same model.

    Raises:
        ResourceError: Data cannot be read.
    """
    paths = {key: value for key, value in request.arguments.items() if isinstance(value, Path)}
    facts = {
        "version": VERSION,
        "command": request.command,
        "config": request.config,
        "arguments": {key: str(value) for key, value in request.arguments.items() if key not in ("config", *paths)},
        "data": {key: content_hash(path) for key, path in {**paths, **request.inputs}.items()},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
