"""`modelkit compare`: a gate that a new model must pass before it replaces the old one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import ci, page
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag
from modelkit.cli.evaluate import BatchOption, DataOption, SecondsOption, compare
from modelkit.cli.folder import no_results


def command(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD", help="The model that is to be replaced: ONNX or a checkpoint.", show_default=False
        ),
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The model that replaces it.", show_default=False)],
    data: DataOption = None,
    max_drop: f.MaxDropOption = None,
    min_agreement: Annotated[
        str | None,
        typer.Option("--min-agreement", metavar="SHARE", help="Smallest share of equal predictions: 99% or 0.99."),
    ] = None,
    min_sqnr: Annotated[
        str | None,
        typer.Option("--min-sqnr", metavar="DB", help="Least signal-to-noise ratio of the outputs, in dB."),
    ] = None,
    max_size_growth: Annotated[
        str | None,
        typer.Option("--max-size-growth", metavar="SHARE", help="How much larger the files may be: 5% or 0.05."),
    ] = None,
    max_slowdown: Annotated[
        str | None,
        typer.Option(
            "--max-slowdown", metavar="SHARE", help="How much longer it may take, beyond what noise explains: 10%."
        ),
    ] = None,
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
    output: f.PageOption = None,
    force: f.ForceFlag = False,
    html: f.HtmlFlag = False,
    junit: JunitOption = None,
    github: GithubFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Hold a new model against the old one; exit code 1 and a line for each gate that it misses.

    Without any limit safe ones hold: quality may fall by 1 % (without labels, 2 % of the predictions may change;
    without data, outputs must have 20 dB), files may grow by 5 %, and a run may take 10 % longer. Outputs that
    become infinite or NaN are always a miss.

    For example:

        modelkit compare old.onnx new.onnx --data labelled.npz

        modelkit compare old.onnx new.onnx --data labelled.npz --max-drop 0.5% --max-slowdown 5%

        modelkit compare old.onnx new.onnx --data labelled.npz --junit compare.xml --github
    """
    ci.begin("compare", new, junit=junit, github=github, files=(old, data, config))
    from modelkit import api

    options = f.resolve_config(
        "compare",
        api.CompareConfig,
        config=config,
        sets=sets,
        flags={
            "budget.max_drop": ("--max-drop", max_drop),
            "budget.min_agreement": ("--min-agreement", min_agreement),
            "budget.min_sqnr": ("--min-sqnr", min_sqnr),
            "budget.max_size_growth": ("--max-size-growth", max_size_growth),
            "budget.max_slowdown": ("--max-slowdown", max_slowdown),
            "budget.min_ratio": ("--min-ratio", min_ratio),
            "budget.min_speedup": ("--min-speedup", min_speedup),
            "budget.max_latency": ("--max-latency", max_latency),
            "measure.seconds": ("--seconds", seconds),
            "measure.batch": ("--batch", batch),
            "measure.threads": ("--threads", threads),
        },
    )
    no_results(output, html=html)
    target = page.place(html, output, [new, old], "comparison", force=force)
    loading = f.loading(arch, inputs, trust)
    compare(
        lambda listener: api.compare(old, new, data=data, config=options, loading=loading, progress=listener),
        new,
        target=target,
        as_json=as_json,
        quiet=quiet,
        verbose=verbose,
    )
