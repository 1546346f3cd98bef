"""`modelkit rules extract`: a short rule set that imitates a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json, state
from modelkit.cli.rules.learn import OutcomeName, PolicyName


def command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An ONNX file whose input is a table.", show_default=False)
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="PATH", help="Rows with the columns that it takes: csv or parquet.")
    ],
    target: Annotated[
        str | None,
        typer.Option("--target", "-y", metavar="COLUMN", help="The column of labels, where there are any."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="YAML", help="The rules file; the ONNX file goes beside it."),
    ] = None,
    max_rules: Annotated[str | None, typer.Option("--max-rules", metavar="N", help="Rules at most (8).")] = None,
    max_literals: Annotated[
        str | None, typer.Option("--max-literals", metavar="N", help="Comparisons at most, in all rules together.")
    ] = None,
    policy: Annotated[
        PolicyName,
        typer.Option("--policy", help="A list where the first rule decides, rules that add up, or the better."),
    ] = PolicyName.AUTO,
    precision: Annotated[
        str | None,
        typer.Option(
            "--min-precision", metavar="SHARE", help="Rules that are each right on this share of their rows."
        ),
    ] = None,
    queries: Annotated[
        str | None, typer.Option("--queries", metavar="X", help="Made-up rows to ask about, for each row (4).")
    ] = None,
    outcome: Annotated[OutcomeName, typer.Option("--outcome", help="Whether the model gives labels or numbers.")] = (
        OutcomeName.AUTO
    ),
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="COLUMN", help="A column that the model does not take; repeatable."),
    ] = None,
    seed: f.SeedOption = None,
    config: f.ConfigOption = None,
    sets: f.SetOption = None,
    force: f.ForceFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Imitate a model by short rules; agreement is measured on rows that were held out, and on made-up ones.

    For example:

        modelkit rules extract model.onnx --data rows.csv --max-rules 8

        modelkit rules extract model.onnx --data rows.csv --target label --min-precision 0.98 --json
    """
    from modelkit.rules.extract.config import ExtractConfig
    from modelkit.rules.extract.extract import extract
    from modelkit.rules.extract.show import render

    options = f.resolve_config(
        "rules-extract",
        ExtractConfig,
        config=config,
        sets=sets,
        flags={
            "max_rules": ("--max-rules", max_rules),
            "max_literals": ("--max-literals", max_literals),
            "policy": ("--policy", None if policy is PolicyName.AUTO else str(policy)),
            "precision": ("--min-precision", precision),
            "methods": ("--min-precision", None if precision is None else ["cover"]),
            "queries": ("--queries", queries),
            "seed": ("--seed", seed),
        },
    )
    with progress(quiet=quiet, verbose=verbose) as listener:
        report = extract(
            model,
            data,
            output,
            target=target,
            config=options.value,
            outcome=str(outcome),
            without=without or (),
            force=force,
            progress=listener,
        )
    state.wrote = True
    if as_json:
        show_json(report.as_json())
    elif not quiet:
        show(render(report))
