"""modelkit as a library: one function for each command, the same that the command line calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.checkpoint.loading import Loading
from modelkit.compare.config import CompareConfig as CompareConfig
from modelkit.compare.config import EvaluateConfig as EvaluateConfig
from modelkit.config.resolve import Resolved, resolve
from modelkit.folders import folder_request as folder_request
from modelkit.folders import run_folder as run_folder
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.quantize.config import QuantizeConfig
from modelkit.recipe.config import RecipeConfig
from modelkit.recipe.job import RecipeJob, recipe_job
from modelkit.transform.commands import make_job, maker_of

if TYPE_CHECKING:
    from modelkit.report.plan import Plan
    from modelkit.report.report import Report
    from modelkit.report.verification import Verification
    from modelkit.transform.job import Job


def quantize(
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    config: Resolved[QuantizeConfig] | Mapping[str, Any] | None = None,
    force: bool = False,
    html: bool = False,
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
        html: Whether to write the report as a page for the browser too.
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
        "quantize",
        model,
        output=output,
        data=data,
        test=test,
        config=config,
        force=force,
        html=html,
        loading=loading,
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
    html: bool = False,
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
        html: Whether to write the report as a page for the browser too.
        loading: For a checkpoint its architecture, inputs and trust (see docs/checkpoints.md).
        progress: Told how far the work is.

    Returns:
        The report; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    job = make_job(
        "prune",
        model,
        output=output,
        data=data,
        test=test,
        config=config,
        force=force,
        html=html,
        loading=loading,
    )
    return run(job, progress)


def run_recipe(
    recipe: Resolved[RecipeConfig] | Mapping[str, Any] | str | Path,
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    force: bool = False,
    html: bool = False,
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
        html: Whether to write the report as a page for the browser too.
        loading: For a checkpoint its architecture, inputs and trust (see docs/checkpoints.md).
        cache: Folder for what the steps make; True for a hidden one beside the output, False for none.
        progress: Told how far the work is.

    Returns:
        The report, with a part for each step; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    made = recipe_job(
        model,
        recipe,
        output=output,
        data=data,
        test=test,
        force=force,
        html=html,
        loading=loading,
        cache=cache,
    )
    return run(made, progress)


def run(job: Job, progress: Progress = silent) -> Report:
    """Do what a job describes, made by ``transform.commands.make_job`` or ``recipe.job.recipe_job``."""
    from modelkit.transform.graphless import is_graphless, prune_weights
    from modelkit.transform.pipeline import transform

    if isinstance(job, RecipeJob):
        from modelkit.recipe.run import run_recipe as cook

        return cook(job, progress)
    if is_graphless(job):
        return prune_weights(job, progress)
    return transform(job, maker_of(job), progress)


def dry_run(job: Job, progress: Progress = silent) -> Plan:
    """Tell what ``run`` would do; nothing is written."""
    from modelkit.transform.graphless import is_graphless, plan_weights
    from modelkit.transform.pipeline import plan

    if isinstance(job, RecipeJob):
        from modelkit.recipe.plan import plan_recipe

        return plan_recipe(job, progress)
    if is_graphless(job):
        return plan_weights(job)
    return plan(job, maker_of(job), progress)


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
        ``{"schema": "modelkit.comparison/1", "status": ..., "models": [...], "data": ..., "notes": [...],
        "machine": ..., "config": ..., "origins": ...}``; origins tell where each option's value came from.

    Raises:
        BudgetError: A model is outside the budget; carries the same as ``report``.
        ModelkitError: A model or the data cannot be used.
    """
    if not isinstance(config, Resolved):
        config = resolve(EvaluateConfig, flags={key: (value, key) for key, value in (config or {}).items()})
    return _evaluate(models, data, config, loading, progress)


def compare(
    old: str | Path,
    new: str | Path,
    *,
    data: str | Path | None = None,
    config: Resolved[CompareConfig] | Mapping[str, Any] | None = None,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> dict[str, Any]:
    """Hold a new model against the one that it is to replace.

    Args:
        old: An ONNX file or a checkpoint.
        new: The same, with the same inputs and outputs.
        data: Inputs, with labels for quality; made-up inputs without.
        config: Options as dotted keys (``{"budget.max_drop": 0.005}``), or already resolved. Without any limit safe
            ones hold: 1 % of quality or 2 % of the predictions, 5 % of size, 10 % of time.
        loading: For checkpoints their architecture, inputs and trust; the same for both.
        progress: Told how far the work is.

    Returns:
        What ``evaluate`` returns; the second of ``models`` has ``gates``.

    Raises:
        BudgetError: A gate is missed; carries the same as ``report``.
        ModelkitError: A model or the data cannot be used.
    """
    if not isinstance(config, Resolved):
        config = resolve(CompareConfig, flags={key: (value, key) for key, value in (config or {}).items()})
    return _evaluate([old, new], data, config, loading, progress)


def _evaluate(
    models: Sequence[str | Path],
    data: str | Path | None,
    config: Resolved[EvaluateConfig] | Resolved[CompareConfig],
    loading: Loading,
    progress: Progress,
) -> dict[str, Any]:
    from modelkit.compare.compare import check_limits, compare_models, hold

    paths = [Path(path) for path in models]
    check_limits(config.value.budget, len(paths))
    found = compare_models(paths, None if data is None else Path(data), config.value, progress, loading)
    found |= {"config": config.value.model_dump(mode="json"), "origins": dict(config.origins)}
    hold(found, config.value.budget)
    return found


def verify(
    report: str | Path,
    *,
    model: str | Path | None = None,
    artifact: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    tolerance: float | str = 0.5,
    seconds: float = 2.0,
    latency: bool = True,
    progress: Progress = silent,
) -> Verification:
    """Find out whether what a report says is so.

    Args:
        report: The ``.report.json`` beside an artifact. Nothing in it is trusted.
        model: The original, where it is not beside the report; the same for the others.
        artifact: The artifact.
        data: The data that was worked with.
        test: The data that was tested on.
        loading: For a checkpoint its architecture, inputs and trust.
        tolerance: How much slower than reported the artifact may run: 0.5 or "50%".
        seconds: Time spent on timing each model.
        latency: Whether to measure latency.
        progress: Told how far the work is.

    Returns:
        Each figure as reported and as found; what differs is told and not raised.

    Raises:
        ModelkitError: The file is no report, names what is not beside it, or a file cannot be read.
    """
    from modelkit.verify.verify import Given, VerifyConfig, verify_report

    config = resolve(VerifyConfig, flags={"tolerance": (tolerance, "--tolerance"), "seconds": (seconds, "--seconds")})
    named = {"model": model, "artifact": artifact, "data": data, "test": test}
    given = Given(
        **{role: Path(path) for role, path in named.items() if path is not None},
        loading=loading,
        tolerance=config.value.tolerance,
        latency=latency,
        seconds=config.value.seconds,
    )
    return verify_report(Path(report), given, progress)


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
