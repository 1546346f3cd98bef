"""modelkit as a library: one function for each command, the same that the command line calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelkit.batch.options import FolderOptions
from modelkit.checkpoint.loading import Loading
from modelkit.commands import COMMANDS, artifact_name, make_job, maker_of
from modelkit.config import Resolved, resolve
from modelkit.data.preprocess import Preprocess
from modelkit.options import Block, Measure, Synthetic
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.quantize.config import QuantizeConfig
from modelkit.recipe.config import RUN, RecipeConfig
from modelkit.recipe.job import RecipeJob, default_cache, recipe_artifact, recipe_job, step_inputs

if TYPE_CHECKING:
    from modelkit.batch.plan import Request
    from modelkit.batch.run import Listener
    from modelkit.job import Job
    from modelkit.jobs.protocol import Runner
    from modelkit.report.plan import Plan
    from modelkit.report.report import Report
    from modelkit.report.summary import Summary


def quantize(
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    config: Resolved[QuantizeConfig] | Mapping[str, Any] | None = None,
    force: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> Report:
    """Store a model's numbers in fewer bits, and prove that it still works.

    Args:
        model: An ONNX file or a checkpoint.
        output: Where the artifact goes; by default beside the model, as ``<stem>.int8.onnx``.
        data: Inputs, with labels or without: npz, folder, csv, parquet, images (see docs/data.md).
        test: Labelled inputs for the final figures only.
        config: Options as dotted keys (``{"bits": 4, "weights.scale": "mse"}``), or already resolved.
        force: Whether to overwrite an artifact that exists.
        loading: For a checkpoint its architecture, inputs and trust (see docs/checkpoints.md).
        progress: Told how far the work is.

    Returns:
        The report; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.

    Example:
        >>> from modelkit.api import quantize
        >>> report = quantize("model.onnx", data="calib.npz", config={"bits": 8})
        >>> report.size_ratio
        0.26
    """
    job = make_job(
        "quantize", model, output=output, data=data, test=test, config=config, force=force, loading=loading
    )
    return run(job, progress)


def prune(
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    config: Resolved[PruneConfig] | Mapping[str, Any] | None = None,
    force: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> Report:
    """Set weights to zero, or take whole channels out, and prove that the model still works.

    Args:
        model: An ONNX file or a checkpoint.
        output: Where the artifact goes; by default beside the model, as ``<stem>.pruned.onnx``.
        data: Inputs, with labels or without: npz, folder, csv, parquet, images (see docs/data.md).
        test: Labelled inputs for the final figures only.
        config: Options as dotted keys (``{"sparsity": 0.5}``, ``{"channels": 0.3}``), or already resolved.
        force: Whether to overwrite an artifact that exists.
        loading: For a checkpoint its architecture, inputs and trust (see docs/checkpoints.md).
        progress: Told how far the work is.

    Returns:
        The report; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    job = make_job("prune", model, output=output, data=data, test=test, config=config, force=force, loading=loading)
    return run(job, progress)


def run_recipe(
    recipe: Resolved[RecipeConfig] | Mapping[str, Any] | str | Path,
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    force: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    cache: str | Path | bool = True,
    progress: Progress = silent,
) -> Report:
    """Run several commands in order on a model, and prove what came of it against the original.

    Args:
        recipe: A YAML file, its values (``{"steps": [{"command": "prune", "sparsity": 0.5}, ...]}``), or already
            resolved.
        model: An ONNX file or a checkpoint.
        output: Where the artifact goes; by default beside the model, as ``<stem>.pruned.int8.onnx`` or the like.
        data: Inputs for all steps that name none of their own, with labels or without (see docs/data.md).
        test: Labelled inputs for the final figures only; a part of ``data`` is set apart for that without.
        force: Whether to overwrite an artifact that exists.
        loading: For a checkpoint its architecture, inputs and trust (see docs/checkpoints.md).
        cache: Folder for what the steps make; True for a hidden one beside the output, False for none.
        progress: Told how far the work is.

    Returns:
        The report, with a part for each step; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    made = recipe_job(model, recipe, output=output, data=data, test=test, force=force, loading=loading, cache=cache)
    return run(made, progress)


def run(job: Job, progress: Progress = silent) -> Report:
    """Do what a job describes; see ``modelkit.commands.make_job`` and ``modelkit.recipe.job.recipe_job``."""
    from modelkit.graphless import is_graphless, prune_weights
    from modelkit.pipeline import transform

    if isinstance(job, RecipeJob):
        from modelkit.recipe.run import run_recipe as cook

        return cook(job, progress)
    if is_graphless(job):
        return prune_weights(job, progress)
    return transform(job, maker_of(job), progress)


def dry_run(job: Job, progress: Progress = silent) -> Plan:
    """Tell what ``run`` would do; nothing is written."""
    from modelkit.graphless import is_graphless, plan_weights
    from modelkit.pipeline import plan

    if isinstance(job, RecipeJob):
        from modelkit.recipe.plan import plan_recipe

        return plan_recipe(job, progress)
    if is_graphless(job):
        return plan_weights(job)
    return plan(job, maker_of(job), progress)


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
    return make_request(
        command,
        Path(models),
        None if output is None else Path(output),
        given={
            "config": config,
            "data": None if data is None else Path(data),
            "test": None if test is None else Path(test),
            "loading": None if loading == Loading() else loading,
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


class EvaluateConfig(Block):
    """Options of `modelkit evaluate`."""

    measure: Measure = Field(default_factory=Measure)
    synthetic: Synthetic = Field(default_factory=Synthetic)
    preprocess: Preprocess | None = Field(None, description="how images become inputs, for folders of images")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of everything random")


def evaluate(
    models: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    config: Resolved[EvaluateConfig] | Mapping[str, Any] | None = None,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure models side by side: size, quality, agreement with the first one, latency.

    Args:
        models: ONNX files or checkpoints with the same inputs and outputs; the first is the reference.
        data: Inputs, with labels for quality; made-up inputs without.
        config: Options as dotted keys, or already resolved.
        loading: For checkpoints their architecture, inputs and trust; the same for all of them.
        progress: Told how far the work is.

    Returns:
        ``{"schema": "modelkit.comparison/1", "models": [...], "data": ..., "notes": [...], "machine": ...,
        "config": ..., "origins": ...}``; origins tell where each option's value came from.

    Raises:
        ModelkitError: A model or the data cannot be used.
    """
    from modelkit.compare import compare_models

    if not isinstance(config, Resolved):
        config = resolve(EvaluateConfig, flags={key: (value, key) for key, value in (config or {}).items()})
    paths = [Path(path) for path in models]
    found = compare_models(paths, None if data is None else Path(data), config.value, progress, loading)
    return {**found, "config": config.value.model_dump(mode="json"), "origins": dict(config.origins)}


def inspect(model: str | Path, *, loading: Loading = Loading()) -> dict[str, Any]:  # noqa: B008 - frozen
    """Tell what is in a model file.

    Args:
        model: An ONNX file or a checkpoint.
        loading: For a checkpoint its architecture, inputs and trust; without an architecture its weights are listed.

    Returns:
        ``{"schema": "modelkit.inspection/1", "file": ..., "size": ..., "facts": ...}``; the facts are those of
        ``modelkit.graph.facts.ModelFacts``. For weights without an architecture
        ``{"schema": "modelkit.state/1", "file": ..., "tensors": [...], ...}``.

    Raises:
        ModelkitError: The file cannot be read as a model.
    """
    from dataclasses import asdict

    from modelkit.checkpoint.open import open_source
    from modelkit.checkpoint.tell import is_state, tell
    from modelkit.files import file_record
    from modelkit.graph.facts import describe
    from modelkit.graph.load import load
    from modelkit.measure.size import measure_size
    from modelkit.report.inspection import SCHEMA

    path = Path(model)
    if loading.arch is None and not loading.inputs and is_state(path):
        return tell(path, trust=loading.trust)
    with open_source(path, loading) as source:
        facts = describe(load(source.onnx).model)
        return {
            "schema": SCHEMA,
            "file": file_record(path),
            "size": asdict(measure_size(source.onnx)),
            "facts": asdict(facts),
            "notes": source.notes,
        }
