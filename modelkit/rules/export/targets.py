"""The languages that a rule set can be written in, and the one function that writes it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from modelkit.files import Staging, check_outputs
from modelkit.rules.export.dmn import to_dmn
from modelkit.rules.export.json import to_json
from modelkit.rules.export.markdown import to_markdown
from modelkit.rules.export.pmml import to_pmml
from modelkit.rules.export.python import to_python
from modelkit.rules.export.sql import to_sql
from modelkit.rules.load import load
from modelkit.rules.model import RuleSet


class Target(StrEnum):
    """A language."""

    SQL = "sql"
    PYTHON = "python"
    JSON = "json"
    DMN = "dmn"
    PMML = "pmml"
    MARKDOWN = "markdown"

    @property
    def suffix(self) -> str:
        """How a file's name ends."""
        return {"python": ".py", "json": ".rules.json", "markdown": ".md"}.get(self, f".{self}")


WRITERS: dict[Target, Callable[[RuleSet], str]] = {
    Target.SQL: to_sql,
    Target.PYTHON: to_python,
    Target.JSON: to_json,
    Target.DMN: to_dmn,
    Target.PMML: to_pmml,
    Target.MARKDOWN: to_markdown,
}


def export(rules: Path, target: Target, output: Path | None = None, *, force: bool = False) -> str:
    """Write a rules file in another language.

    Args:
        rules: The rules file, YAML.
        target: The language.
        output: Where to; None writes nothing.
        force: Whether a file that exists may be replaced.

    Returns:
        The text.

    Raises:
        ConfigError: The rules file is wrong.
        ExportError: The language cannot say it exactly.
        UsageError: The output exists.
    """
    if output is not None:
        check_outputs([output], [rules], force=force)
    text = WRITERS[target](load(rules))
    if output is not None:
        with Staging(output.parent) as stage:
            stage.path(output.name).write_text(text, encoding="utf-8", newline="\n")
            stage.publish([output.name], force=force)
    return text
