"""`modelkit predict`: what a model says about the rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli.console import DebugFlag, QuietFlag, say, show_text, state


def command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An ONNX file that takes a table.", show_default=False)
    ],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="The rows: csv, tsv, parquet or npz.", show_default=False)
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="COLUMN", help="A column of DATA to put beside the predictions; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="A csv or parquet file to write; stdout otherwise."),
    ] = None,
    force: f.ForceFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Use a model on new rows: its label and probabilities, or its prediction, for each.

    For example:

        modelkit predict model.onnx new.csv

        modelkit predict model.onnx new.csv --keep id -o predictions.csv
    """
    from modelkit.automl import predict

    found = predict.predict(model, data, tuple(keep or ()))
    for note in found.notes:
        say(f"note: {note}", quiet=quiet)
    if output is None:
        show_text(predict.as_csv(found))
        return
    predict.write(found, output, [model, data], force=force)
    state.wrote = True
    say(f"wrote {output}", quiet=quiet)
