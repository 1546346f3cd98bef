"""`modelkit evaluate`: quality, fidelity and latency of models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli import page
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json
from modelkit.cli.folder import FolderFlags, any_folder, no_results, run_folder


def command(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="ONNX files or checkpoints; the first is the reference. Or a folder of them, each by itself.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Inputs to run the models on, with labels for quality: npz, folder of npy, images or ONNX test "
            "sets, csv, parquet. Made-up inputs without.",
        ),
    ] = None,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    seconds: Annotated[
        str | None,
        typer.Option("--seconds", metavar="S", help="Time spent on timing each model (2)."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="N", help="Samples in one timed batch (1)."),
    ] = None,
    threads: f.ThreadsOption = None,
    config: f.ConfigOption = None,
    sets: f.SetOption = None,
    output: f.ResultsOption = None,
    force: f.ForceFlag = False,
    match: f.MatchOption = None,
    skip: f.SkipOption = None,
    workers: f.WorkersOption = None,
    timeout: f.TimeoutOption = None,
    memory: f.MemoryOption = None,
    resume: f.ResumeFlag = False,
    html: f.HtmlFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compare models: accuracy on labelled data, agreement with the first model, size and latency.

    For example:

        modelkit evaluate model.onnx --data labelled.npz

        modelkit evaluate model.onnx model.int8.onnx --data labelled.npz

        modelkit evaluate model.onnx model.int8.onnx --threads 2 --json

        modelkit evaluate models/ --data labelled.npz
    """
    from modelkit import api
    from modelkit.report import comparison

    many = FolderFlags(match, skip, workers, timeout, memory, resume)
    folder = any_folder(models, many)
    options = f.resolve_config(
        "evaluate",
        api.EvaluateConfig,
        config=config,
        sets=sets,
        flags={
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
    with progress(quiet=quiet, verbose=verbose) as listener:
        found = api.evaluate(
            models, data=data, config=options, loading=f.loading(arch, inputs, trust), progress=listener
        )
    if as_json:
        show_json(found)
    elif not quiet:
        show(comparison.render(found))
    page.write(found, target, quiet=quiet or as_json)
