"""`modelkit automl`: from a table to one verified ONNX file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json, state


def command(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A table to learn from: csv, tsv, parquet or npz.", show_default=False),
    ],
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="COLUMN", help="The column to predict.")
    ] = None,
    time_: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="Time of the whole run: 60s, 10min (60s).")
    ] = None,
    max_trials: Annotated[
        str | None,
        typer.Option("--max-trials", metavar="N", help="Try exactly this many instead: the same result each time."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", metavar="PATH", help="Rows that only the reported figures are from (a part of DATA)."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="MODEL", help="An ONNX model to judge on the same rows, as you run it today."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="classification or regression (told by the target).")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="What is optimised: log_loss, accuracy, balanced_accuracy, f1, auc; rmse, mae.",
        ),
    ] = None,
    weight: Annotated[
        str | None, typer.Option("--weight", metavar="COLUMN", help="How much each row counts.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="COLUMN", help="Rows with the same value are never split.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option("--time-column", metavar="COLUMN", help="Earlier rows predict later ones.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="A column to leave out; repeatable.")
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", metavar="METHOD", help="auto, random or bayesian (auto).")
    ] = None,
    max_size: Annotated[str | None, typer.Option("--max-size", metavar="SIZE", help="Largest file: 500kB.")] = None,
    max_latency: Annotated[
        str | None, typer.Option("--max-latency", metavar="TIME", help="Longest median latency of one row: 1ms.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", metavar="N", help="Trials at a time (one for each processor).")
    ] = None,
    config: f.ConfigOption = None,
    sets: f.SetOption = None,
    seed: f.SeedOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="Where the artifact goes (model.onnx).")
    ] = None,
    force: f.ForceFlag = False,
    html: f.HtmlFlag = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was ended, on the same data and options.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Find a good model for a table and write it, preprocessing included, as one ONNX file.

    For example:

        modelkit automl data.csv --target species

        modelkit automl data.csv --target price --time 10min -o price.onnx

        modelkit automl train.parquet --target churn --test test.parquet --metric balanced_accuracy
    """
    began = time.monotonic()
    from modelkit.automl.config import AutomlConfig

    options = f.resolve_config(
        "automl",
        AutomlConfig,
        config=config,
        sets=sets,
        flags={
            "target": ("--target", target),
            "time": ("--time", time_),
            "max_trials": ("--max-trials", max_trials),
            "task": ("--task", task),
            "metric": ("--metric", metric),
            "weight": ("--weight", weight),
            "group": ("--group", group),
            "time_column": ("--time-column", time_column),
            "ignore": ("--ignore", ignore or None),
            "search.method": ("--search", search),
            "budget.max_size": ("--max-size", max_size),
            "budget.max_latency": ("--max-latency", max_latency),
            "workers": ("--workers", workers),
            "seed": ("--seed", seed),
        },
    )
    from modelkit.automl.session import automl
    from modelkit.report import leaderboard

    where = output if output is not None else Path("model.onnx")
    with progress(quiet=quiet, verbose=verbose) as listener:
        report = automl(
            data,
            where,
            options,
            test=test,
            baseline=baseline,
            force=force,
            html=html,
            resume=resume,
            progress=listener,
            began=began,
        )
    state.wrote = True
    if as_json:
        show_json(report)
    elif not quiet:
        show(leaderboard.render(report))
