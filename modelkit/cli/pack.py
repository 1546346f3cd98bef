"""`modelkit pack` and `modelkit unpack`: options become a config, one call, one print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import ci
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, say, state
from modelkit.cli.folder import FolderFlags, is_folder
from modelkit.cli.transform import Given, transform


def command(
    model: f.ModelArgument,
    effort: Annotated[
        str | None,
        typer.Option("--effort", metavar="HOW", help="size: the smallest file; load: loaded soonest; auto: between."),
    ] = None,
    output: f.OutputOption = None,
    data: f.DataOption = None,
    test: f.TestOption = None,
    force: f.ForceFlag = False,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Pack only weights whose name matches; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Leave matching weights alone; repeatable."),
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
    """Store a model's weights in fewer bytes without changing any of them.

    Weights that are zero, or that share few values, as pruned and quantized ones do, are stored in compressed form
    and rebuilt by standard operators while onnxruntime loads the model. Nothing else is needed to run the artifact,
    MODEL.packed.onnx, and it runs as fast as before.

    For example:

    A model that is sparse or quantized already:

        modelkit pack model.pruned.onnx

    The smallest file, even if it takes a moment longer to load; exit code 1 where it is not ten times smaller:

        modelkit pack model.pruned.onnx --effort size --min-ratio 10x

    The plain model back:

        modelkit unpack model.pruned.packed.onnx
    """
    ci.begin("pack", model, junit=junit, github=github, files=(output, data, test, config))
    from modelkit.graph.load import packed_names
    from modelkit.pack.config import PackConfig

    folder = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    if not is_folder(model, folder) and (packed := packed_names(model)):
        state.wrote = True
        say(f"{model} is packed already ({len(packed)} weights): nothing was done", quiet=quiet)
        say("hint: modelkit unpack gives the plain model back, to be packed in another way", quiet=quiet)
        return
    options = f.resolve_config(
        "pack",
        PackConfig,
        config=config,
        sets=sets,
        flags={
            "effort": ("--effort", effort),
            **f.shared(None, include, exclude, max_drop, min_ratio, min_speedup, max_latency, threads, seed),
        },
    )
    given = Given(
        output, data, test, f.loading(None, None, False), force, html, dry_run, explain, as_json, quiet, verbose
    )
    transform("pack", model, options, folder, given)


def unpack(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A packed ONNX file.", show_default=False)],
    output: f.OutputOption = None,
    force: f.ForceFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Give a packed model its plain weights back; all of them are as they were, bit by bit.

    For example:

        modelkit unpack model.packed.onnx

        modelkit unpack model.packed.onnx -o model.onnx
    """
    from modelkit import api

    with progress(quiet=quiet, verbose=verbose) as listener:
        written, count = api.unpack(model, output=output, force=force, progress=listener)
    state.wrote = True
    say(f"wrote {written}: {count} weights are plain again", quiet=quiet)
