"""Commands on every model below a folder, as a library: ``modelkit.api`` hands these on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.batch.options import FolderOptions
from modelkit.checkpoint.loading import Loading
from modelkit.compare.config import EvaluateConfig
from modelkit.config.options import Block
from modelkit.config.resolve import Resolved, resolve
from modelkit.recipe.config import RUN, RecipeConfig
from modelkit.recipe.job import default_cache, recipe_artifact, step_inputs
from modelkit.transform.commands import COMMANDS, artifact_name

if TYPE_CHECKING:
    from modelkit.batch.plan import Request
    from modelkit.batch.run import Listener
    from modelkit.jobs.protocol import Runner
    from modelkit.report.summary import Summary


def run_folder(request: Request, *, listener: Listener | None = None, runner: Runner | None = None) -> Summary:
    """Run a command on every model below a folder, each in a process of its own with limits.

    Args:
        request: What to do; see ``folder_request``.
        listener: Told what happens.
        runner: What runs the models; processes of this machine by default.

    Returns:
        A row for each model, sorted. A model that failed is a row with its reason, not an exception.

    Raises:
        ModelkitError: Nothing could be done: no model, results that exist, a folder in use or not writable.

    Example:
        >>> from modelkit.api import folder_request, run_folder
        >>> summary = run_folder(folder_request("quantize", "models", output="small", options={"workers": 2}))
        >>> summary.counts
        {'done': 12}
    """
    from modelkit.batch.run import run as run_batch

    return run_batch(request, listener, runner)


def folder_request(
    command: str,
    models: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    config: Resolved[Any] | Mapping[str, Any] | None = None,
    options: Resolved[FolderOptions] | Mapping[str, Any] | None = None,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    cache: str | Path | bool = True,
    resume: bool = False,
    force: bool = False,
    html: bool = False,
) -> Request:
    """Describe a run over a folder without starting it.

    Args:
        command: quantize, prune, run, inspect or evaluate.
        models: The folder of models.
        output: The folder of results, which mirrors that of the models; inspect and evaluate need none.
        data: As the command takes it; the same for every model.
        test: The same.
        config: The command's options as dotted keys, or already resolved (inspect has none; of run, the recipe).
        options: Options of the run over the folder (``{"workers": 2, "timeout": "10min"}``), or already resolved;
            see ``modelkit.batch.options.FolderOptions``.
        loading: For checkpoints their architecture, inputs and trust; the same for all of them.
        cache: Of run, the folder for what steps make; True for a hidden one in the output, False for none.
        resume: Whether to leave alone what is done and unchanged.
        force: Whether to replace what is there.
        html: Whether to write a page for the browser for each model, and an index.

    Raises:
        UsageError: The command takes no folder, or needs an output.
        ConfigError: An option is wrong.
    """
    from modelkit.batch.requests import make_request

    schemas: dict[str, type[Block]] = {
        **{name: each.schema for name, each in COMMANDS.items()},
        RUN: RecipeConfig,
        "evaluate": EvaluateConfig,
    }
    if command in schemas and not isinstance(config, Resolved):
        config = resolve(schemas[command], flags={key: (value, key) for key, value in (config or {}).items()})
    if not isinstance(options, Resolved):
        options = resolve(FolderOptions, flags={key: (value, key) for key, value in (options or {}).items()})
    name: Callable[[Path], str] | None = None
    aside: dict[str, Any] = {}
    inputs: dict[str, Path] = {}
    if command == RUN and isinstance(config, Resolved):
        name = partial(recipe_artifact, recipe=config)
        aside, inputs = {"cache": _folder_cache(cache, output)}, step_inputs(config)
    elif command in COMMANDS and isinstance(config, Resolved):
        name = partial(artifact_name, command, config=config.value)
        inputs = {f"file {number}": path for number, path in enumerate(COMMANDS[command].reads(config.value), 1)}
        # Whether half-done trainings are gone on with changes no result.
        aside = {"resume": resume}
    return make_request(
        command,
        Path(models),
        None if output is None else Path(output),
        given={
            "config": config,
            "data": None if data is None else Path(data),
            "test": None if test is None else Path(test),
            "loading": None if loading == Loading() else loading,
            "html": html or None,
        },
        aside=aside,
        inputs=inputs,
        options=options.value,
        artifact_name=name,
        writes_back=command in COMMANDS and COMMANDS[command].writes_back,
        resume=resume,
        force=force,
    )


def _folder_cache(cache: str | Path | bool, output: str | Path | None) -> Path | bool:
    """One cache for all models of a folder."""
    if cache is True and output is not None:
        return default_cache(Path(output))
    return cache if isinstance(cache, bool) else Path(cache)
