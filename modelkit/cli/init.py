"""`modelkit init` and `modelkit schema`: commented templates of configs, and their JSON Schemas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelkit.cli.console import DebugFlag, say, show, show_json, show_text
from modelkit.errors import UsageError
from modelkit.staging import shown

if TYPE_CHECKING:
    from pydantic import BaseModel

CommandArgument = Annotated[
    str,
    typer.Argument(
        metavar="COMMAND",
        help="The command whose config is wanted: quantize, prune, distill, compress, pack, run, automl, nas, "
        "evaluate, compare or rules.",
        show_default=False,
    ),
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

    For example:

        modelkit init quantize

        modelkit init quantize --list

        modelkit init quantize --template static -o static.yaml
    """
    from modelkit import templates

    schema = _schema_of(command)
    if list_:
        from modelkit.report.text import pairs

        show(pairs(templates.available(command)))
        return
    text = templates.read(command, template)
    if output == Path("-"):
        show_text(text)
        return
    target = output if output is not None else Path(f"{command}.yaml")
    templates.write(command, text, schema, target, force=force)
    use = {
        "run": f"run {target} MODEL",
        "nas": f"nas --data DATA --config {target}",
        "automl": f"automl DATA --target COLUMN --config {target}",
        "compare": f"compare OLD NEW --config {target}",
        "rules": f"rules check {target}",
    }
    say(f"wrote {target}; run: modelkit {use.get(command, f'{command} MODEL --config {target}')}")


def schema(command: CommandArgument, debug: DebugFlag = False) -> None:
    """Print the JSON Schema of a command's config, for editors and validators.

    For example:

        modelkit schema quantize

        modelkit schema quantize > quantize.schema.json
    """
    from modelkit.config.resolve import json_schema

    show_json(json_schema(_schema_of(command), command))


def _schema_of(command: str) -> type[BaseModel]:
    """The config of a command."""
    from modelkit.api import CompareConfig, EvaluateConfig
    from modelkit.automl.config import AutomlConfig
    from modelkit.nas.config import NasConfig
    from modelkit.recipe.config import RUN, RecipeConfig
    from modelkit.rules.config import RulesFile
    from modelkit.rules.extract.config import ExtractConfig
    from modelkit.rules.learn.config import LearnConfig
    from modelkit.transform.commands import COMMANDS

    schemas: dict[str, type[BaseModel]] = {
        **{name: each.schema for name, each in COMMANDS.items()},
        RUN: RecipeConfig,
        "automl": AutomlConfig,
        "nas": NasConfig,
        "evaluate": EvaluateConfig,
        "compare": CompareConfig,
        "rules": RulesFile,
        "rules-learn": LearnConfig,
        "rules-extract": ExtractConfig,
    }
    if command not in schemas:
        raise UsageError(f"'{shown(command)}' has no config", f"commands with one: {', '.join(schemas)}")
    return schemas[command]
