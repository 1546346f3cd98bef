"""`modelkit run`: a recipe and a model, one call, one print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import ci
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, state
from modelkit.cli.folder import FolderFlags, is_folder, run_folder
from modelkit.cli.transform import Given, run_job
from modelkit.errors import UsageError


def command(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="A YAML file with the steps; modelkit init run writes one.", show_default=False
        ),
    ],
    model: f.ModelArgument,
    output: f.OutputOption = None,
    data: f.DataOption = None,
    test: f.TestOption = None,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    force: f.ForceFlag = False,
    max_drop: f.MaxDropOption = None,
    min_ratio: f.MinRatioOption = None,
    min_speedup: f.MinSpeedupOption = None,
    max_latency: f.MaxLatencyOption = None,
    max_size: f.MaxSizeOption = None,
    threads: f.ThreadsOption = None,
    sets: f.SetOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FOLDER",
            help="Where what the steps make is kept for later runs (.modelkit/cache beside the output).",
        ),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep nothing, and do every step anew.")] = False,
    match: f.MatchOption = None,
    skip: f.SkipOption = None,
    on: f.OnOption = None,
    workers: f.WorkersOption = None,
    cpus: f.CpusOption = None,
    gpus: f.GpusOption = None,
    timeout: f.TimeoutOption = None,
    memory: f.MemoryOption = None,
    resume: f.ResumeFlag = False,
    dry_run: f.DryRunFlag = False,
    explain: f.ExplainFlag = False,
    junit: JunitOption = None,
    github: GithubFlag = False,
    seed: f.SeedOption = None,
    html: f.HtmlFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Run a recipe: several commands in order on one model, with one report and one budget against the original.

    What each step makes is kept, so that a second run goes on from the first step that changed.

    For example:

    Prune, then quantize:

        modelkit init run -o recipe.yaml

        modelkit run recipe.yaml model.onnx --data labelled.npz

    Another number of bits in the second step, and at most one point of accuracy lost in all:

        modelkit run recipe.yaml model.onnx --data labelled.npz --set steps.1.bits=4 --max-drop 1% --force

    Every model below a folder:

        modelkit run recipe.yaml models/ -o small/ --workers 2
    """
    ci.begin("run", model, junit=junit, github=github, files=(recipe, output, data, test))
    from modelkit.recipe.config import RecipeConfig
    from modelkit.recipe.job import recipe_job

    if cache is not None and no_cache:
        raise UsageError("--cache and --no-cache are both given", "give one of them")
    _check_order(recipe)
    folder = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    options = f.resolve_config(
        "run",
        RecipeConfig,
        config=recipe,
        sets=sets,
        flags={
            "budget.max_drop": ("--max-drop", max_drop),
            "budget.min_ratio": ("--min-ratio", min_ratio),
            "budget.min_speedup": ("--min-speedup", min_speedup),
            "budget.max_latency": ("--max-latency", max_latency),
            "budget.max_size": ("--max-size", max_size),
            "measure.threads": ("--threads", threads),
            "seed": ("--seed", seed),
        },
    )
    loading = f.loading(arch, inputs, trust)
    given = Given(output, data, test, loading, force, html, dry_run, explain, as_json, quiet, verbose)
    where = False if no_cache else cache if cache is not None else True
    if is_folder(model, folder):
        run_folder("run", model, folder, config=options, cache=where, **given.for_folder())
        return
    job = recipe_job(
        model, options, output=output, data=data, test=test, force=force, html=html, loading=loading, cache=where
    )
    with _told_what_is_kept():
        run_job(job, given)


def _check_order(recipe: Path) -> None:
    """Refuse a model where the recipe belongs, which would be told as a mistake on its first line."""
    from modelkit.checkpoint.open import CHECKPOINTS
    from modelkit.files import Kind, shown, sniff

    if recipe.is_file() and sniff(recipe) in (Kind.ONNX, *CHECKPOINTS):
        raise UsageError(f"'{shown(recipe)}' is a model; the recipe comes first", "modelkit run RECIPE MODEL")


@contextmanager
def _told_what_is_kept() -> Iterator[None]:
    """Where the run is cut short, say what of it need not be done again."""
    try:
        yield
    except BaseException as error:
        state.left = "; ".join(getattr(error, "__notes__", []))
        raise
