"""`modelkit evaluate`: quality, fidelity and latency of models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, progress, show, show_json


def command(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="ONNX files; the first is the reference.", show_default=False),
    ],
    data: f.DataOption = None,
    seconds: Annotated[
        str | None,
        typer.Option(
            "--seconds", metavar="S", help="Time spent on timing each model (2).", rich_help_panel="Measuring"
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="N", help="Samples in one timed batch (1).", rich_help_panel="Measuring"),
    ] = None,
    threads: f.ThreadsOption = None,
    config: f.ConfigOption = None,
    sets: f.SetOption = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compare models: accuracy on labelled data, agreement with the first model, size and latency.

    **Examples**

        modelkit evaluate model.onnx --data labelled.npz

        modelkit evaluate model.onnx model.int8.onnx --data labelled.npz

        modelkit evaluate model.onnx model.int8.onnx --threads 2 --json
    """
    from modelkit import api
    from modelkit.report import comparison

    options = f.resolve_config(
        api.EvaluateConfig,
        config=config,
        sets=sets,
        flags={
            "measure.seconds": ("--seconds", seconds),
            "measure.batch": ("--batch", batch),
            "measure.threads": ("--threads", threads),
        },
    )
    with progress(quiet=quiet) as listener:
        found = api.evaluate(models, data=data, config=options, progress=listener)
    if as_json:
        show_json(found)
    elif not quiet:
        show(comparison.render(found))
