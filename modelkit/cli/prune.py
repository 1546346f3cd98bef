"""`modelkit prune`: options become a config, one call, one print."""

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
        str | None, typer.Option("--sparsity", metavar="SHARE", help="Share of weights to set to zero: 0.5 or 50%.")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels", metavar="SHARE", help="Share of channels to take out: 0.3, or auto for the most that fits."
        ),
    ] = None,
    threshold: Annotated[
        str | None, typer.Option("--threshold", metavar="X", help="Zero the weights whose magnitude is below X.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="HOW", help="How weights are chosen: auto, magnitude, wanda, obs."),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--pattern", metavar="N:M", help="2:4 leaves 2 of every 4 weights; 4x1 zeroes whole blocks."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="WHAT",
            help="What --channels counts: channels, parameters, macs, bytes, latency.",
        ),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            "--importance",
            metavar="HOW",
            help="How channels are rated: auto, reconstruction, activation, taylor, l1, l2, gamma, "
            "geometric_median, random.",
        ),
    ] = None,
    finetune: Annotated[
        str | None,
        typer.Option("--finetune", metavar="EPOCHS", help="Then train for this many passes over the data."),
    ] = None,
    output: f.OutputOption = None,
    data: f.DataOption = None,
    test: f.TestOption = None,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    force: f.ForceFlag = False,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective", metavar="WHAT", help="Preferred inside the budget: balanced, size, latency, quality."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Prune only layers whose name matches; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave matching layers alone; repeatable."),
    ] = None,
    pack: f.PackOption = None,
    max_drop: f.MaxDropOption = None,
    min_ratio: f.MinRatioOption = None,
    min_speedup: f.MinSpeedupOption = None,
    max_latency: f.MaxLatencyOption = None,
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
    """Take numbers out of a model: single weights become zero, or whole channels go.

    The artifact is an ordinary ONNX file, MODEL.pruned.onnx, with a report beside it that says what happened
    layer by layer.

    For example:

    Half of the weights of each layer become zero:

        modelkit prune model.onnx --sparsity 0.5

    A smaller and faster graph, repaired with real inputs and without training:

        modelkit prune model.onnx --channels 0.3 --data calib.npz

    The largest cut that keeps the accuracy, with training; exit code 1 where there is none:

        modelkit prune model.onnx --channels auto --max-drop 1% --data train.npz --finetune 3

    Every model below a folder:

        modelkit prune models/ --sparsity 0.5 -o small/ --workers 2
    """
    ci.begin("prune", model, junit=junit, github=github, files=(output, data, test, config))
    from modelkit.prune.config import PruneConfig

    folder = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    options = f.resolve_config(
        "prune",
        PruneConfig,
        config=config,
        sets=sets,
        flags={
            "sparsity": ("--sparsity", sparsity),
            "channels": ("--channels", channels),
            "threshold": ("--threshold", threshold),
            "method": ("--method", method),
            "pattern": ("--pattern", pattern),
            "structure.target": ("--target", target),
            "structure.importance": ("--importance", importance),
            "finetune.epochs": ("--finetune", finetune),
            "pack": ("--pack", pack),
            **f.shared(objective, include, exclude, max_drop, min_ratio, min_speedup, max_latency, threads, seed),
        },
    )
    loading = f.loading(arch, inputs, trust)
    given = Given(output, data, test, loading, force, html, dry_run, explain, as_json, quiet, verbose)
    transform("prune", model, options, folder, given)
