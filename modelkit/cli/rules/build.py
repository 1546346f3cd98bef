"""`modelkit rules build`: a rules file becomes one verified ONNX file with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json, state
from modelkit.cli.rules.options import DataOption, RulesArgument, SecondsOption, TargetOption, seconds
from modelkit.errors import BudgetError


def command(
    rules: RulesArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The ONNX file (RULES with the ending .onnx)."),
    ] = None,
    data: DataOption = None,
    target: TargetOption = None,
    budget: SecondsOption = "60",
    allow_findings: Annotated[
        bool, typer.Option("--allow-findings", help="Build even where the check finds errors.")
    ] = False,
    rows: Annotated[
        int, typer.Option("--rows", min=1, metavar="N", help="Random rows on which the file is verified.")
    ] = 100_000,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of these rows.")] = 0,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check a rules file, build an ONNX file of it, and compare that with the rules' meaning on many rows.

    Its inputs are the columns; its outputs are label (or prediction), scores and rule_id.

    For example:

        modelkit rules build rules.yaml

        modelkit rules build rules.yaml --data test.csv -o rules.onnx --json
    """
    from modelkit.rules.build import build
    from modelkit.rules.findings import CheckReport
    from modelkit.rules.show import render_build, render_check

    time = seconds(budget)
    try:
        with progress(quiet=quiet, verbose=verbose) as listener:
            report = build(
                rules,
                output,
                data=data,
                target=target,
                seconds=time,
                allow_findings=allow_findings,
                random=rows,
                seed=seed,
                force=force,
                progress=listener,
            )
    except BudgetError as error:
        if isinstance(error.report, CheckReport):
            if as_json:
                show_json(error.report.as_json())
            elif not quiet:
                show(render_check(error.report))
        raise
    state.wrote = True
    if as_json:
        show_json(report.as_json())
    elif not quiet:
        show(render_build(report))
