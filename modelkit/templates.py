"""Config templates that `modelkit init` writes, and the schemas that editors check them with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import UsageError
from modelkit.files import Staging, check_outputs, write_json

if TYPE_CHECKING:
    from pydantic import BaseModel


def _schemas() -> dict[str, type[BaseModel]]:
    from modelkit.quantize.config import QuantizeConfig

    return {"quantize": QuantizeConfig}


def _folder(command: str) -> Path:
    """Templates lie in the package once installed, and in configs/ of a source tree."""
    installed = Path(__file__).parent / "configs" / command
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs" / command


def _known(command: str) -> type[BaseModel]:
    schemas = _schemas()
    if command not in schemas:
        raise UsageError(f"'{command}' has no config", f"commands with one: {', '.join(sorted(schemas))}")
    return schemas[command]


def available(command: str) -> list[tuple[str, str]]:
    """List the templates of a command: name and first comment line.

    Raises:
        UsageError: The command has none.
    """
    _known(command)
    found = []
    for path in sorted(_folder(command).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found.append((path.stem, lines[1].lstrip("# ") if len(lines) > 1 else ""))
    return found


def read(command: str, name: str) -> str:
    """Return the text of a template.

    Raises:
        UsageError: There is no such command or template.
    """
    names = [known for known, _ in available(command)]
    if name not in names:
        raise UsageError(f"modelkit {command} has no template '{name}'", f"there are {', '.join(names)}; see --list")
    return (_folder(command) / f"{name}.yaml").read_text(encoding="utf-8")


def schema(command: str) -> dict[str, Any]:
    """Return the JSON Schema of a command's config.

    Raises:
        UsageError: The command has none.
    """
    from modelkit.config import json_schema

    return json_schema(_known(command), command)


def write(command: str, text: str, target: Path, *, force: bool) -> list[Path]:
    """Write a template, and the schema that its first line points editors to, beside each other.

    Raises:
        UsageError: The target exists.
        ResourceError: The folder cannot be written.
    """
    check_outputs([target], [], force=force)
    schema_name = f"{command}.schema.json"
    with Staging(target.parent) as stage:
        stage.path(target.name).write_text(text, encoding="utf-8")
        write_json(stage.path(schema_name), schema(command))
        names = [target.name]
        same = target.parent / schema_name
        if not same.exists() or same.read_bytes() != stage.path(schema_name).read_bytes():
            names.append(schema_name)
        # The schema is generated: replacing an older one loses nothing.
        return stage.publish(names, force=True)
