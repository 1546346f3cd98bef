"""`modelkit rules check`: overlaps, conflicts, unreachable rules, gaps and claims, each with rows that show it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json
from modelkit.cli.rules.options import RulesArgument, SecondsOption, seconds


class Dead(StrEnum):
    """How bad a rule is that can never fire."""

    ERROR = "error"
    WARNING = "warning"


def command(
    rules: RulesArgument,
    budget: SecondsOption = "60",
    limit: Annotated[
        int, typer.Option("--limit", min=0, metavar="N", help="Overlaps and conflicts to show of each kind.")
    ] = 10,
    dead: Annotated[Dead, typer.Option("--dead", help="What a rule that can never fire is.")] = Dead.ERROR,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings and on what is unknown, too.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check a rule set over all input that its columns declare. The exit code is 1 where errors are found.

    For example:

        modelkit rules check rules.yaml

        modelkit rules check rules.yaml --strict --json
    """
    from modelkit.rules.check import check
    from modelkit.rules.findings import Level
    from modelkit.rules.onnx_build import open_rules
    from modelkit.rules.show import render_check

    time = seconds(budget)
    with progress(quiet=quiet, verbose=verbose) as listener:
        report = check(open_rules(rules), seconds=time, limit=limit, dead=Level(dead), progress=listener)
    if as_json:
        show_json(report.as_json())
    elif not quiet:
        show(render_check(report))
    if report.fails(strict=strict):
        raise typer.Exit(1)
