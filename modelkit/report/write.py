"""Writes a report's files, each in the form that its name asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelkit.files import Staging, json_bytes
from modelkit.report import markdown
from modelkit.report.report import Report


def write_report(report: Report, stage: Staging, names: Sequence[str]) -> None:
    """Write a report into a staging folder.

    Args:
        report: The report.
        stage: Where it is published from later, together with the artifact.
        names: File names that end in ``.json``, ``.md`` or ``.html``.
    """
    for name in names:
        path = stage.path(name)
        if path.suffix == ".json":
            path.write_bytes(json_bytes(report.to_dict()))
        elif path.suffix == ".md":
            path.write_text(markdown.render(report), encoding="utf-8")
        else:
            from modelkit.report.html.page import render

            path.write_bytes(render(report))


def write_document(found: Mapping[str, Any], document: Path | None, page: Path | None) -> None:
    """Write what ``inspect`` or ``evaluate`` returned, all files or none; what is there is replaced.

    Args:
        found: What was returned.
        document: Where the JSON goes; None for none.
        page: Where the page for the browser goes, in the same folder; None for none.

    Raises:
        ResourceError: A file cannot be written; old ones are intact.
    """
    paths = [path for path in (document, page) if path is not None]
    with Staging(paths[0].parent) as stage:
        if document is not None:
            stage.path(document.name).write_bytes(json_bytes(found))
        if page is not None:
            from modelkit.report.html.page import render

            stage.path(page.name).write_bytes(render(found))
        stage.publish([path.name for path in paths], force=True)
