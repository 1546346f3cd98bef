"""`modelkit evaluate`: quality, fidelity and latency of models side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkit.cli import ci, page
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json
from modelkit.cli.folder import FolderFlags, any_folder, no_results, run_folder
from modelkit.errors import BudgetError

if TYPE_CHECKING:
    from modelkit.progress import Progress


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Inputs to run the models on, with labels for quality: npz, folder of npy, images or ONNX test "
        "sets, csv, parquet. Made-up inputs without.",
    ),
]
SecondsOption = Annotated[
    str | None, typer.Option("--seconds", metavar="S", help="Time spent on timing each model (2).")
]
BatchOption = Annotated[str | None, typer.Option("--batch", metavar="N", help="Samples in one timed batch (1).")]


def command(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="ONNX files or checkpoints; the first is the reference. Or a folder of them, each by itself.",
            show_default=False,
        ),
    ],
    data: DataOption = None,
    max_drop: f.MaxDropOption = None,
    min_ratio: f.MinRatioOption = None,
    min_speedup: f.MinSpeedupOption = None,
    max_latency: f.MaxLatencyOption = None,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    seconds: SecondsOption = None,
    batch: BatchOption = None,
    threads: f.ThreadsOption = None,
    config: f.ConfigOption = None,
    sets: f.SetOption = None,
    output: f.ResultsOption = None,
    force: f.ForceFlag = False,
    match: f.MatchOption = None,
    skip: f.SkipOption = None,
    on: f.OnOption = None,
    workers: f.WorkersOption = None,
    cpus: f.CpusOption = None,
    gpus: f.GpusOption = None,
    timeout: f.TimeoutOption = None,
    memory: f.MemoryOption = None,
    resume: f.ResumeFlag = False,
    html: f.HtmlFlag = False,
    junit: JunitOption = None,
    github: GithubFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compare models: accuracy on labelled data, agreement with the first model, size and latency.

    Limits are held against each model beside the first; one that is missed is exit code 1.

    For example:

        modelkit evaluate model.onnx --data labelled.npz

        modelkit evaluate model.onnx model.int8.onnx --data labelled.npz

        modelkit evaluate model.onnx model.int8.onnx --threads 2 --json

        modelkit evaluate model.onnx model.int8.onnx --data labelled.npz --max-drop 1% --min-ratio 3x

        modelkit evaluate models/ --data labelled.npz --max-latency 5ms
    """
    ci.begin("evaluate", models[0], junit=junit, github=github, files=(*models[1:], data, config))
    from modelkit import api

    many = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    folder = any_folder(models, many)
    options = f.resolve_config(
        "evaluate",
        api.EvaluateConfig,
        config=config,
        sets=sets,
        flags={
            "budget.max_drop": ("--max-drop", max_drop),
            "budget.min_ratio": ("--min-ratio", min_ratio),
            "budget.min_speedup": ("--min-speedup", min_speedup),
            "budget.max_latency": ("--max-latency", max_latency),
            "measure.seconds": ("--seconds", seconds),
            "measure.batch": ("--batch", batch),
            "measure.threads": ("--threads", threads),
        },
    )
    if folder is not None:
        run_folder(
            "evaluate",
            folder,
            many,
            output=output,
            data=data,
            config=options,
            loading=f.loading(arch, inputs, trust),
            force=force,
            html=html,
            as_json=as_json,
            quiet=quiet,
            verbose=verbose,
        )
        return
    no_results(output, html=html)
    target = page.place(html, output, models, "comparison", force=force)
    loading = f.loading(arch, inputs, trust)
    compare(
        lambda listener: api.evaluate(models, data=data, config=options, loading=loading, progress=listener),
        models[-1],
        target=target,
        as_json=as_json,
        quiet=quiet,
        verbose=verbose,
    )


def compare(
    work: Callable[[Progress], dict[str, Any]],
    model: Path,
    *,
    target: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Measure models side by side, and print what came of it.

    Args:
        work: Does it.
        model: The model that gates are about.
        target: Where the page for the browser goes; None for none.
        as_json: Print JSON.
        quiet: Print nothing.
        verbose: Print every stage.

    Raises:
        BudgetError: A gate was missed; the figures are printed before.
    """
    try:
        with progress(quiet=quiet, verbose=verbose) as listener:
            found = work(listener)
    except BudgetError as error:
        assert isinstance(error.report, dict)
        _print(error.report, model, as_json=as_json, quiet=quiet)
        page.write(error.report, target, quiet=quiet or as_json)
        raise
    _print(found, model, as_json=as_json, quiet=quiet)
    page.write(found, target, quiet=quiet or as_json)


def _print(found: dict[str, Any], model: Path, *, as_json: bool, quiet: bool) -> None:
    from modelkit.report import comparison

    ci.tell_comparison(found, model)
    if as_json:
        show_json(found)
    elif not quiet:
        show(comparison.render(found))
