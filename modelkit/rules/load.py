"""Read a rules file: YAML, checked against the schema, conditions parsed; every problem at once, with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from modelkit.config.errors import MAX_PROBLEMS, explain
from modelkit.config.nodes import Node, plain, printable, written
from modelkit.config.yaml_strict import BrokenYamlError, parse
from modelkit.errors import ConfigError, UsageError
from modelkit.files import require_file, shown
from modelkit.rules.build_set import SetBuilder
from modelkit.rules.config import RulesFile
from modelkit.rules.model import RuleSet
from modelkit.rules.places import Places

MAX_BYTES = 64 << 20
MAX_VALUES = 1_000_000
_HINT = "`modelkit schema rules` lists every key; docs/rules.md describes conditions"


class Finding(NamedTuple):
    """A problem and what it is sorted by: layer, line, column."""

    order: tuple[int, ...]
    text: str


def load(path: Path) -> RuleSet:
    """Read a rules file.

    Args:
        path: YAML in UTF-8, at most 64 MiB.

    Raises:
        UsageError: It does not exist, or is too large.
        ConfigError: It is no valid rule set; with all problems, each with file, line and column.
    """
    require_file(path)
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise UsageError(f"'{shown(path)}' is larger than {MAX_BYTES >> 20} MiB", "split the rule set")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"'{shown(path)}' is not UTF-8 text", [f"{shown(path.name)}:{line}: not UTF-8"]) from error
    return from_yaml(text, path.name)


def from_yaml(text: str, name: str = "rules.yaml") -> RuleSet:
    """Read a rule set from the text of a YAML document.

    Args:
        text: The document.
        name: What to call its file in errors.

    Raises:
        ConfigError: It is no valid rule set; with all problems, each with file, line and column.
    """
    name = printable(name)
    places = Places(text, name)
    try:
        tree, found = parse(text, lambda line: f"{name}:{line}", order=lambda line: (1, line), max_values=MAX_VALUES)
    except BrokenYamlError as error:
        raise _error(name, [Finding(error.args[0].order, error.args[0].text)]) from error
    problems = [Finding(problem.order, problem.text) for problem in found]
    if not isinstance(tree.value, dict):
        if tree.value is None:
            raise _error(name, [Finding((1, 1), f"{name}: the file is empty; columns and rules are expected")])
        raise _error(
            name, [*problems, Finding((1, 1), f"{name}: {written(plain(tree))} is no mapping of keys to values")]
        )
    tree = replace(tree, place=name)
    value, more = _validated(tree)
    problems += more
    if value is None:
        raise _error(name, problems)
    builder = SetBuilder(value, tree, places, Path(name).stem)
    rules = builder.build()
    problems += [Finding(order, line) for order, line in builder.problems]
    if problems or rules is None:
        raise _error(name, problems)
    return rules


@cache
def _adapter() -> tuple[TypeAdapter[RulesFile], dict[str, Any]]:
    adapter = TypeAdapter(RulesFile)
    return adapter, adapter.json_schema()


def _validated(tree: Node) -> tuple[RulesFile | None, list[Finding]]:
    adapter, document = _adapter()
    try:
        return adapter.validate_json(json.dumps(plain(tree)), strict=True), []
    except ValidationError as error:
        problems, more = explain(error, tree, document, complete=True)
        found = [Finding(problem.order, problem.text) for problem in problems]
        return None, [*found, *([Finding((9,), f"and {more} more")] if more else [])]


def _error(name: str, problems: list[Finding]) -> ConfigError:
    lines = list(dict.fromkeys(problem.text for problem in sorted(problems, key=lambda problem: problem.order)))
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    if len(lines) > MAX_PROBLEMS:
        lines = [*lines[:MAX_PROBLEMS], f"and {len(lines) - MAX_PROBLEMS} more"]
    return ConfigError(f"'{name}' has {count}", lines, _HINT)
