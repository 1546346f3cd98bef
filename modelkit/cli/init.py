"""`modelkit init` and `modelkit schema`: commented templates of configs, and their JSON Schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli.console import DebugFlag, say, show_json

CommandArgument = Annotated[
    str,
    typer.Argument(metavar="COMMAND", help="The command whose config is wanted: quantize.", show_default=False),
]


def init(
    command: CommandArgument,
    template: Annotated[
        str, typer.Option("--template", "-t", metavar="NAME", help="Which template; --list shows them.")
    ] = "default",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it (COMMAND.yaml); - prints it."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the templates of the command.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite a file that exists.")] = False,
    debug: DebugFlag = False,
) -> None:
    """Write a commented YAML template for a command.

    **Examples**

        modelkit init quantize

        modelkit init quantize --list

        modelkit init quantize --template static -o static.yaml
    """
    from modelkit import templates

    if list_:
        for name, summary in templates.available(command):
            typer.echo(f"{name:<14}{summary}")
        return
    text = templates.read(command, template)
    if output == Path("-"):
        typer.echo(text, nl=False)
        return
    target = output if output is not None else Path(f"{command}.yaml")
    templates.write(command, text, target, force=force)
    say(f"wrote {target}; run: modelkit {command} MODEL --config {target}")


def schema(command: CommandArgument, debug: DebugFlag = False) -> None:
    """Print the JSON Schema of a command's config, for editors and validators.

    **Examples**

        modelkit schema quantize

        modelkit schema quantize > quantize.schema.json
    """
    from modelkit import templates

    show_json(templates.schema(command))
