"""`modelkit quantize`: options become a config, one call, one print."""

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
    bits: Annotated[
        str | None, typer.Option("--bits", metavar="N", help="Bits per weight: 1 to 8, or 16 (8).")
    ] = None,
    codebook: Annotated[
        str | None,
        typer.Option(
            "--codebook", metavar="N", help="Let the weights of a layer share N values, found by k-means: 16."
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            metavar="MODE",
            help="auto tries what the inputs allow and keeps the best; or weights, dynamic, static, float16, "
            "bfloat16.",
        ),
    ] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="Train with the rounding in it, on --data; labels are not needed.")
    ] = False,
    output: f.OutputOption = None,
    data: f.DataOption = None,
    test: f.TestOption = None,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    force: f.ForceFlag = False,
    objective: Annotated[
        str | None,
        typer.Option("--objective", metavar="WHAT", help="What auto prefers: balanced, size, latency, quality."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Quantize only layers whose name matches; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave matching layers alone; repeatable."),
    ] = None,
    pack: f.PackOption = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="Begin no other way after this long: 30s, 5min.")
    ] = None,
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
    """Store a model's numbers in fewer bits, and prove that it still works.

    Every way that the inputs allow is tried and measured on this machine; the best one inside the budget is
    written as MODEL.int8.onnx, with a report beside it.

    For example:

    The best safe result without data:

        modelkit quantize model.onnx --bits 8

    Integer arithmetic, with ranges from real inputs:

        modelkit quantize model.onnx --data calib.npz

    Not more than half a point of accuracy lost, or exit code 1:

        modelkit quantize model.onnx --data labelled.npz --max-drop 0.5%

    Weights in 4 bits that are trained to be rounded:

        modelkit quantize model.onnx --bits 4 --data train.npz --qat

    Weights that share 16 values for each layer, stored in 4 bits or less:

        modelkit quantize model.onnx --codebook 16

    Every model below a folder, two at a time:

        modelkit quantize models/ -o small/ --workers 2
    """
    ci.begin("quantize", model, junit=junit, github=github, files=(output, data, test, config))
    from modelkit.quantize.config import QuantizeConfig

    folder = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    options = f.resolve_config(
        "quantize",
        QuantizeConfig,
        config=config,
        sets=sets,
        flags={
            "bits": ("--bits", bits),
            "codebook.values": ("--codebook", codebook),
            "mode": ("--mode", mode),
            "pack": ("--pack", pack),
            "time": ("--time", time),
            "qat.enabled": ("--qat", "true" if qat else None),
            **f.shared(objective, include, exclude, max_drop, min_ratio, min_speedup, max_latency, threads, seed),
        },
    )
    loading = f.loading(arch, inputs, trust)
    given = Given(output, data, test, loading, force, html, dry_run, explain, as_json, quiet, verbose)
    transform("quantize", model, options, folder, given)
