"""modelkit as a library: one function for each command, the same that the command line calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.checkpoint.loading import Loading
from modelkit.compare.config import CompareConfig as CompareConfig
from modelkit.compare.config import EvaluateConfig as EvaluateConfig
from modelkit.compress.config import CompressConfig
from modelkit.config.resolve import Resolved
from modelkit.distill.config import DistillConfig
from modelkit.folders import folder_request as folder_request
from modelkit.folders import run_folder as run_folder
from modelkit.look import compare as compare
from modelkit.look import evaluate as evaluate
from modelkit.look import inspect as inspect
from modelkit.look import verify as verify
from modelkit.pack.config import PackConfig
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.quantize.config import QuantizeConfig
from modelkit.recipe.config import RecipeConfig
from modelkit.recipe.job import RecipeJob, recipe_job
from modelkit.searches import nas as nas
from modelkit.transform.commands import make_job, maker_of

if TYPE_CHECKING:
    from modelkit.report.plan import Plan
    from modelkit.report.report import Report
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


def distill(
    teacher: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path,
    test: str | Path | None = None,
    config: Resolved[DistillConfig] | Mapping[str, Any] | None = None,
    force: bool = False,
    html: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    resume: bool = False,
    progress: Progress = silent,
) -> Report:
    """Train a small student on what a large teacher says, and tell whether that helped.

    Args:
        teacher: An ONNX file or a checkpoint.
        output: Where the student goes; by default beside the teacher, as ``<stem>.distilled.onnx``.
        data: Inputs to train on, with labels or without: npz, folder, csv, parquet, images (see docs/data.md).
        test: Labelled inputs for the final figures only.
        config: Options as dotted keys (``{"ratio": 0.25, "training.epochs": 30}``), or already resolved.
        force: Whether to overwrite an artifact that exists.
        html: Whether to write the report as a page for the browser too.
        loading: For a checkpoint its architecture, inputs and trust (see docs/checkpoints.md).
        resume: Whether to go on from what an interrupted run with the same output left.
        progress: Told how far the work is.

    Returns:
        The report; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    job = make_job(
        "distill",
        teacher,
        output=output,
        data=data,
        test=test,
        config=config,
        force=force,
        html=html,
        loading=loading,
        resume=resume,
    )
    return run(job, progress)


def compress(
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path,
    test: str | Path | None = None,
    config: Resolved[CompressConfig] | Mapping[str, Any] | None = None,
    force: bool = False,
    html: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> Report:
    """Prune a model, let its weights share values, train both and pack the result: the smallest file in a budget.

    Args:
        model: An ONNX file or a checkpoint.
        output: Where the artifact goes; by default beside the model, as ``<stem>.compressed.onnx``.
        data: Inputs to train on, with labels or without: npz, folder, csv, parquet, images (see docs/data.md).
        test: Labelled inputs for the final figures only.
        config: Options as dotted keys (``{"budget.max_drop": 0.005}``), or already resolved.
        force: Whether to overwrite an artifact that exists.
        html: Whether to write the report as a page for the browser too.
        loading: For a checkpoint its architecture, inputs and trust (see docs/checkpoints.md).
        progress: Told how far the work is.

    Returns:
        The report, with every candidate that was tried; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    job = make_job(
        "compress", model, output=output, data=data, test=test, config=config, force=force, html=html, loading=loading
    )
    return run(job, progress)


def pack(
    model: str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    config: Resolved[PackConfig] | Mapping[str, Any] | None = None,
    force: bool = False,
    html: bool = False,
    progress: Progress = silent,
) -> Report:
    """Store a model's weights in fewer bytes without changing a bit of any.

    Args:
        model: An ONNX file.
        output: Where the artifact goes; by default beside the model, as ``<stem>.packed.onnx``.
        data: Inputs to compare the two on; made up where there are none.
        test: Labelled inputs for the final figures only.
        config: Options as dotted keys (``{"effort": "size"}``), or already resolved.
        force: Whether to overwrite an artifact that exists.
        html: Whether to write the report as a page for the browser too.
        progress: Told how far the work is.

    Returns:
        The report; the artifact and the report's files are written.

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    job = make_job("pack", model, output=output, data=data, test=test, config=config, force=force, html=html)
    return run(job, progress)


def unpack(
    model: str | Path, *, output: str | Path | None = None, force: bool = False, progress: Progress = silent
) -> tuple[Path, int]:
    """Give a packed model its plain weights back.

    Args:
        model: A packed ONNX file.
        output: Where the plain one goes; by default beside it, as ``<stem>.unpacked.onnx``.
        force: Whether to overwrite a file that exists.
        progress: Told how far the work is.

    Returns:
        The file that was written, and how many weights were packed.

    Raises:
        ModelError: Nothing in it is packed, or it is damaged.
        ModelkitError: The output cannot be written.
    """
    from modelkit.pack.unpack import unpack_file

    source = Path(model)
    target = Path(output) if output is not None else source.with_name(f"{source.stem}.unpacked.onnx")
    return target, unpack_file(source, target, force=force, progress=progress)


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
