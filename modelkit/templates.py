"""Config templates that `modelkit init` writes, each with the schema that editors check it with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.config.resolve import json_schema
from modelkit.errors import UsageError
from modelkit.files import Staging, check_outputs, json_bytes, shown

if TYPE_CHECKING:
    from pydantic import BaseModel


def available(command: str) -> list[tuple[str, str]]:
    """List the templates of a command: name and summary (the second line), the default first."""
    found = []
    for path in sorted(_folder(command).glob("*.yaml"), key=lambda path: (path.stem != "default", path.stem)):
        lines = path.read_text(encoding="utf-8").splitlines()
        found.append((path.stem, lines[1].lstrip("# ") if len(lines) > 1 else ""))
    return found


def read(command: str, name: str) -> str:
    """Return the text of a template.

    Raises:
        UsageError: There is no such template.
    """
    names = [known for known, _ in available(command)]
    if name not in names:
        raise UsageError(
            f"modelkit {command} has no template '{shown(name)}'", f"there are {', '.join(names)}; see --list"
        )
    return (_folder(command) / f"{name}.yaml").read_text(encoding="utf-8")


def write(command: str, text: str, schema: type[BaseModel], target: Path, *, force: bool) -> list[Path]:
    """Write a template, and the schema that its first line points editors to, beside each other.

    Args:
        command: Name of the command.
        text: The template.
        schema: The command's config.
        target: Where the template goes.
        force: Whether to overwrite a file that exists.

    Raises:
        UsageError: The target exists, or has the schema's name.
        ResourceError: The folder cannot be written.
    """
    beside = target.with_name(f"{command}.schema.json")
    check_outputs([target, beside], [], force=True)
    check_outputs([target], [], force=force)
    with Staging(target.parent) as stage:
        stage.path(target.name).write_text(text, encoding="utf-8")
        stage.path(beside.name).write_bytes(json_bytes(json_schema(schema, command)))
        names = [target.name]
        if not beside.exists() or beside.read_bytes() != stage.path(beside.name).read_bytes():
            names.append(beside.name)
        # The schema is generated: replacing an older one loses nothing.
        return stage.publish(names, force=True)


def _folder(command: str) -> Path:
    """Templates lie in the package once installed, and in configs/ of a source tree."""
    installed = Path(__file__).parent / "configs" / command
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs" / command
