"""`modelkit distill`: options become a config, one call, one print."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import ci
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag
from modelkit.cli.folder import FolderFlags
from modelkit.cli.transform import Given, transform


def command(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="TEACHER",
            help="The teacher: an ONNX file or a checkpoint, or a folder of them.",
            show_default=False,
        ),
    ],
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            metavar="WHAT",
            help="The student: an ONNX file, mlp, cnn or transformer, or an architecture's YAML; else one is cut "
            "out of the teacher.",
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            "--ratio", metavar="SHARE", help="Share of the teacher that a derived student keeps: 0.5 or 50%."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="WHAT", help="What --ratio counts: channels, parameters, macs, bytes, latency."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method", metavar="HOW", help="What the student follows: logits, dist, dkd, features, attention."
        ),
    ] = None,
    teachers: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher", metavar="FILE", help="A further teacher; the student follows the mean of all. Repeatable."
        ),
    ] = None,
    assistant: Annotated[
        str | None,
        typer.Option(
            "--assistant",
            metavar="SHARE",
            help="A network between that learns first and then teaches: its share of the teacher, or auto.",
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            "--unlabelled", metavar="PATH", help="Further inputs without labels: the teacher answers for them."
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            "--bits", metavar="N", help="Also make the student one of integers, trained with the rounding: 8 or 4."
        ),
    ] = None,
    epochs: Annotated[str | None, typer.Option("--epochs", metavar="N", help="Passes over the data (20).")] = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="Longest time for all training: 5m.")
    ] = None,
    no_baseline: Annotated[
        bool, typer.Option("--no-baseline", help="Do not train the student without the teacher too, to compare.")
    ] = False,
    allow_larger: Annotated[
        bool, typer.Option("--allow-larger", help="Take a student that is larger than the teacher.")
    ] = False,
    output: f.OutputOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Inputs to train on, with labels or without: npz, folder of npy, images or ONNX test sets, csv, "
            "parquet. A part of them is kept for the final figures.",
        ),
    ] = None,
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
        typer.Option("--include", metavar="PATTERN", help="Cut only layers whose name matches; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave the width of matching layers; repeatable."),
    ] = None,
    pack: f.PackOption = None,
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
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where an interrupted run was. Of a folder, leave alone what is done and nothing has changed.",
        ),
    ] = False,
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
    """Train a small student on what a large teacher says.

    The student is cut out of the teacher and repaired, or given. The artifact is an ordinary ONNX file,
    TEACHER.distilled.onnx, with a report beside it that compares it with the teacher, and with the same student
    trained without one.

    For example:

    Half of the teacher's channels; labels are not needed:

        modelkit distill teacher.onnx --data train.npz

    A quarter of its multiply-accumulates, trained for longer:

        modelkit distill teacher.onnx --data train.npz --ratio 25% --target macs --epochs 60

    The smallest student that loses no more than one percent:

        modelkit distill teacher.onnx --data train.npz --max-drop 1%

    A network of one's own:

        modelkit distill teacher.onnx --data train.npz --student student.onnx
    """
    ci.begin("distill", model, junit=junit, github=github, files=(output, data, test, config))
    from modelkit.distill.config import DistillConfig

    folder = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    if not os.path.isdir(model):  # noqa: PTH112 - unlike Path.is_dir it never raises
        folder = replace(folder, resume=False)
    options = f.resolve_config(
        "distill",
        DistillConfig,
        config=config,
        sets=sets,
        flags={
            "student": ("--student", student),
            "ratio": ("--ratio", ratio),
            "structure.target": ("--target", target),
            "method": ("--method", method),
            "teachers": ("--teacher", teachers or None),
            "bits": ("--bits", bits),
            "assistant": ("--assistant", assistant),
            "unlabelled": ("--unlabelled", unlabelled),
            "training.epochs": ("--epochs", epochs),
            "time": ("--time", time),
            "baseline": ("--no-baseline", False if no_baseline else None),
            "allow_larger": ("--allow-larger", allow_larger or None),
            "budget.max_size": ("--max-size", max_size),
            "pack": ("--pack", pack),
            **f.shared(objective, include, exclude, max_drop, min_ratio, min_speedup, max_latency, threads, seed),
        },
    )
    loading = f.loading(arch, inputs, trust)
    given = Given(output, data, test, loading, force, html, dry_run, explain, as_json, quiet, verbose, resume)
    transform("distill", model, options, folder, given)
