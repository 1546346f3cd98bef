"""`modelkit rules export`: a rules file in SQL, Python, JSON, DMN, PMML or Markdown."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli.console import DebugFlag, QuietFlag, say, show_text, state
from modelkit.cli.rules.options import RulesArgument


class To(StrEnum):
    """A language."""

    SQL = "sql"
    PYTHON = "python"
    JSON = "json"
    DMN = "dmn"
    PMML = "pmml"
    MARKDOWN = "markdown"


def command(
    rules: RulesArgument,
    to: Annotated[To, typer.Option("--to", help="The language.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; it is printed without."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite a file that exists.")] = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write a rules file in another language; what that cannot say exactly is refused with the reason.

    For example:

        modelkit rules export rules.yaml --to sql

        modelkit rules export rules.yaml --to python -o rules.py
    """
    from modelkit.rules.export.targets import Target, export

    text = export(rules, Target(to), output, force=force)
    if output is None:
        show_text(text)
    else:
        state.wrote = True
        say(f"wrote {output}", quiet=quiet)
