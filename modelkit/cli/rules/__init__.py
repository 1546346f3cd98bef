"""`modelkit rules`: rule engines that are written, checked and run as ONNX; one file for each sub-command."""

from __future__ import annotations

import typer

from modelkit.cli.rules import build, check, explain, export, extract, learn

app = typer.Typer(
    name="rules",
    help="Write, check and run rule engines.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("build", short_help="Make a verified ONNX file of a rules file.")(build.command)
app.command("check", short_help="Find overlaps, gaps and unreachable rules; prove claims.")(check.command)
app.command("explain", short_help="Say which rule decided a row, and why.")(explain.command)
app.command("export", short_help="Write a rules file as SQL, Python, JSON, DMN, PMML or Markdown.")(export.command)
app.command("learn", short_help="Learn short rules from labelled rows.")(learn.command)
app.command("extract", short_help="Imitate a saved model by short rules.")(extract.command)
