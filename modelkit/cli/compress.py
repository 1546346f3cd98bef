"""`modelkit compress`: options become a config, one call, one print."""

from __future__ import annotations

from typing import Annotated

import typer

from modelkit.cli import ci
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag
from modelkit.cli.folder import FolderFlags
from modelkit.cli.transform import Given, transform


def command(
    model: f.ModelArgument,
    sparsity: Annotated[
        str | None,
        typer.Option(
            "--sparsity",
            metavar="SHARE",
            help="Share of weights to set to zero: 95%, or auto for the most that fits.",
        ),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option("--values", metavar="N", help="Values that the weights of a layer share: 16, or auto."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher", metavar="FILE", help="A larger model to follow, an ONNX file; else the model itself."
        ),
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option("--epochs", metavar="N", help="Passes over the data for each sparsity that is tried (6)."),
    ] = None,
    output: f.OutputOption = None,
    data: f.DataOption = None,
    test: f.TestOption = None,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    force: f.ForceFlag = False,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Compress only layers whose name matches; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave matching layers alone; repeatable."),
    ] = None,
    pack: Annotated[
        str | None,
        typer.Option("--pack", metavar="HOW", help="How weights are packed: size, auto, load (size)."),
    ] = None,
    max_drop: f.MaxDropOption = None,
    min_ratio: f.MinRatioOption = None,
    min_speedup: f.MinSpeedupOption = None,
    max_latency: f.MaxLatencyOption = None,
    max_size: f.MaxSizeOption = None,
    threads: f.ThreadsOption = None,
    config: f.ConfigOption = None,
    sets: f.SetOption = None,
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
    """Find the smallest file of a model inside a budget: pruned, few shared values, packed, and trained in between.

    Ever more weights become zero, then the others take ever fewer values, as long as the accuracy holds. Every
    candidate is in the report with its size and its accuracy; the smallest is written as MODEL.compressed.onnx, an
    ordinary ONNX file.

    For example:

    Not more than half a point of accuracy lost:

        modelkit compress model.onnx --data train.npz --max-drop 0.5%

    So many zeros and values, and nothing searched:

        modelkit compress model.onnx --data train.npz --sparsity 95% --values 16

    Following a larger model:

        modelkit compress model.onnx --data train.npz --max-drop 0.5% --teacher large.onnx
    """
    ci.begin("compress", model, junit=junit, github=github, files=(output, data, test, config))
    from modelkit.compress.config import CompressConfig

    folder = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    options = f.resolve_config(
        "compress",
        CompressConfig,
        config=config,
        sets=sets,
        flags={
            "sparsity": ("--sparsity", sparsity),
            "values": ("--values", values),
            "teacher": ("--teacher", teacher),
            "pruning.epochs": ("--epochs", epochs),
            "pack": ("--pack", pack),
            "budget.max_size": ("--max-size", max_size),
            **f.shared(None, include, exclude, max_drop, min_ratio, min_speedup, max_latency, threads, seed),
        },
    )
    loading = f.loading(arch, inputs, trust)
    given = Given(output, data, test, loading, force, html, dry_run, explain, as_json, quiet, verbose)
    transform("compress", model, options, folder, given)
