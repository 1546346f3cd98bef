"""The page of a command that only looks: where it goes, checked before any work, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelkit.cli.console import say, state
from modelkit.errors import UsageError
from modelkit.staging import shown


def place(html: bool, output: Path | None, models: Sequence[Path], kind: str, *, force: bool) -> Path | None:
    """Where the page goes: beside the first model, unless the user says otherwise. None where none is wanted.

    Args:
        html: Whether a page is wanted.
        output: What the user named.
        models: What is looked at; none of it may be overwritten.
        kind: What the page's name ends in before ``.html``.
        force: Whether a page that is there may be replaced.

    Raises:
        UsageError: The name is not one of a page, or a page is there already.
    """
    from modelkit.files import check_outputs

    if not html:
        return None
    path = output or models[0].with_name(f"{models[0].stem}.{kind}.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"'{shown(path)}' is no name of a page", "--html writes a file that ends in .html")
    check_outputs([path], models, force=force)
    return path


def write(found: Mapping[str, Any], path: Path | None, *, quiet: bool) -> None:
    """Write the page, if one is wanted.

    Raises:
        ResourceError: It cannot be written.
    """
    if path is None:
        return
    from modelkit.report.write import write_document

    write_document(found, None, path)
    state.wrote = True
    say(f"wrote {path}", quiet=quiet)
