"""Options that several sub-commands of `modelkit rules` share."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

RulesArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RULES", help="A rules file in YAML; check takes an ONNX file made of one, too.", show_default=False
    ),
]
SecondsOption = Annotated[
    str,
    typer.Option(
        "--seconds", metavar="S", help="How long the check may take, such as 10 or 2min; what is not done is unknown."
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="FILE", help="csv or parquet with the columns of the rules, and labels if there are any."
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", metavar="COLUMN", help="The column of the labels (label, labels or target)."),
]


def seconds(text: str, flag: str = "--seconds") -> float:
    """A duration in seconds.

    Raises:
        ConfigError: It is none, or not above 0.
    """
    from pydantic import Field

    from modelkit.config.options import Block
    from modelkit.config.resolve import Seconds, resolve

    class Budget(Block):
        """How long something may take."""

        seconds: Seconds = Field(60.0, gt=0, description="how long it may take")

    given: object = text
    with contextlib.suppress(ValueError):
        given = float(text)
    return resolve(Budget, flags={"seconds": (given, flag)}).value.seconds
