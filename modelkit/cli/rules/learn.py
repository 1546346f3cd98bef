"""`modelkit rules learn`: short rules out of labelled rows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json, state


class PolicyName(StrEnum):
    """What kind of rule set is learned."""

    AUTO = "auto"
    FIRST = "first"
    ADDITIVE = "additive"


class OutcomeName(StrEnum):
    """What the rules give."""

    AUTO = "auto"
    LABEL = "label"
    NUMBER = "number"


def command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Labelled rows: csv or parquet.", show_default=False)],
    target: Annotated[str, typer.Option("--target", "-y", metavar="COLUMN", help="The column to learn.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="YAML", help="The rules file; the ONNX file goes beside it."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            "--test", metavar="PATH", help="Labelled rows for the final figures; nothing is chosen by them."
        ),
    ] = None,
    max_rules: Annotated[str | None, typer.Option("--max-rules", metavar="N", help="Rules at most (8).")] = None,
    max_literals: Annotated[
        str | None, typer.Option("--max-literals", metavar="N", help="Comparisons at most, in all rules together.")
    ] = None,
    policy: Annotated[
        PolicyName,
        typer.Option("--policy", help="A list where the first rule decides, rules that add up, or the better."),
    ] = PolicyName.AUTO,
    outcome: Annotated[OutcomeName, typer.Option("--outcome", help="Whether labels or numbers are learned.")] = (
        OutcomeName.AUTO
    ),
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="COLUMN", help="A column that rules must not look at; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="Try only this learner: additive, scorecard, rulefit, tree, list, optimal, ripper; repeatable.",
        ),
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
    """Learn rules from a table: several learners and sizes are cross-validated, and the best is written.

    For example:

        modelkit rules learn data.csv --target species --max-rules 8

        modelkit rules learn train.csv --target price --test test.csv -o price.yaml --json
    """
    from modelkit.rules.learn.config import LearnConfig
    from modelkit.rules.learn.learn import learn
    from modelkit.rules.learn.show import render

    options = f.resolve_config(
        "rules-learn",
        LearnConfig,
        config=config,
        sets=sets,
        flags={
            "max_rules": ("--max-rules", max_rules),
            "max_literals": ("--max-literals", max_literals),
            "policy": ("--policy", None if policy is PolicyName.AUTO else str(policy)),
            "methods": ("--method", method or None),
            "seed": ("--seed", seed),
        },
    )
    with progress(quiet=quiet, verbose=verbose) as listener:
        report = learn(
            data,
            target,
            output,
            config=options.value,
            outcome=str(outcome),
            without=without or (),
            test=test,
            force=force,
            progress=listener,
        )
    state.wrote = True
    if as_json:
        show_json(report.as_json())
    elif not quiet:
        show(render(report))
