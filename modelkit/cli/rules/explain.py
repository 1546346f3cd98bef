"""`modelkit rules explain`: which rule decided a row, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, show, show_json


def command(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="An ONNX file that rules build made, or a rules file.", show_default=False
        ),
    ],
    data: Annotated[
        Path, typer.Argument(metavar="ROWS", help="csv or parquet with the columns of the rules.", show_default=False)
    ],
    row: Annotated[int, typer.Option("--row", min=0, metavar="N", help="The first row, counted from 0.")] = 0,
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="How many rows.")] = 10,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say for each row which rule decided, and what each of its comparisons says of the row.

    For example:

        modelkit rules explain rules.onnx row.csv

        modelkit rules explain rules.onnx rows.csv --row 5 --rows 1 --json
    """
    from modelkit.rules.explain import SCHEMA, explain
    from modelkit.rules.show import render_explanation

    found = explain(model, data, first=row, count=rows)
    if as_json:
        show_json({"schema": SCHEMA, "rows": [each.as_json() for each in found]})
    elif not quiet:
        show(render_explanation(found))
