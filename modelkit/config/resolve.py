"""Layers of configuration (defaults, YAML, --set, flags) become one validated value that knows its origins.

Later layers win: flags over ``--set`` over YAML over the schema's defaults. Mappings are merged key by key,
lists and scalars are replaced. Imported by command bodies only, because pydantic is slow to load.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema, to_jsonable_python

from modelkit.config.errors import MAX_PROBLEMS, explain
from modelkit.config.nodes import (
    Node,
    Problem,
    child,
    dotted,
    from_python,
    is_unicode,
    merge,
    nest,
    plain,
    printable,
    split_key,
    written,
)
from modelkit.config.yaml_strict import MAX_BYTES, BrokenYamlError, dump, parse
from modelkit.errors import ConfigError, ResourceError, UsageError

__all__ = ["Bytes", "Factor", "Milliseconds", "Percent", "Resolved", "Seconds", "as_yaml", "json_schema", "resolve"]

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class _Quantity:
    """A float that may be written with a unit.

    Attributes:
        name: What it is, with its article.
        units: Unit -> what one of it is worth; a plain number is worth itself.
        forms: How to write it, for the error.
    """

    name: str
    units: tuple[tuple[str, str], ...]
    forms: str

    def __call__(self, value: object) -> object:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{written(value)} is not {self.name}: write {self.forms}")
        if not isinstance(value, str):
            return value
        units = "|".join(re.escape(unit) for unit, _ in self.units)
        number = r"[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?"
        match = re.fullmatch(rf"({number})\s*({units})?", value.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"{written(value)} is not {self.name}: write {self.forms}")
        return float(Decimal(match[1]) * Decimal(dict(self.units).get(match[2] or "", "1")))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        units = "|".join(re.escape(unit) for unit, _ in self.units)
        pattern = rf"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*({units})?$"
        return {"anyOf": [{"type": "number"}, {"type": "string", "pattern": pattern}]}


Percent = Annotated[
    float, _Quantity("a share", (("%", "0.01"),), "a percentage such as 0.5% or a fraction such as 0.005")
]
"""A share: ``0.5%`` and ``0.005`` are the same; plain numbers are fractions. Bounds belong to the field."""

Factor = Annotated[float, _Quantity("a factor", (("x", "1"),), "how many times, such as 3.5x or 3.5")]
"""How many times: ``3.5x`` and ``3.5`` are the same."""

_TIMES = "a number with a unit such as 5ms or 0.2s, or a plain number of"
Milliseconds = Annotated[
    float,
    _Quantity(
        "a duration",
        (("us", "0.001"), ("ms", "1"), ("s", "1000"), ("min", "60000")),
        f"{_TIMES} milliseconds",
    ),
]
"""A duration in milliseconds: ``5ms``, ``0.2s``, ``300us``, or a plain number of milliseconds."""

Seconds = Annotated[
    float,
    _Quantity(
        "a duration",
        (("us", "0.000001"), ("ms", "0.001"), ("s", "1"), ("min", "60"), ("m", "60"), ("h", "3600")),
        f"{_TIMES} seconds",
    ),
]
"""A duration in seconds: ``90s``, ``2min`` or ``2m``, ``1h``, ``500ms``, or a plain number of seconds."""

Bytes = Annotated[
    float,
    _Quantity(
        "an amount of memory",
        (
            *(("kB", "1e3"), ("MB", "1e6"), ("GB", "1e9"), ("TB", "1e12")),
            *(("KiB", "1024"), ("MiB", "1048576"), ("GiB", "1073741824"), ("TiB", "1099511627776"), ("B", "1")),
        ),
        "a number with a unit such as 500MB or 2GiB, or a plain number of bytes",
    ),
]
"""An amount of memory in bytes: ``500MB``, ``2GiB``, or a plain number of bytes."""


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """A validated configuration.

    Attributes:
        value: The schema's instance.
        origins: For every leaf, its dotted key -> "default", "quantize.yaml:12", "--set a.b=1" or "--bits".
            A list of plain values is one leaf; keys that hold a dot are quoted (``layers."a.weight".bits``).
    """

    value: T
    origins: dict[str, str]


def resolve(
    schema: type[T],
    *,
    yaml_path: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[object, str]] | None = None,
) -> Resolved[T]:
    """Merge the layers, validate them, and say where each value came from.

    Args:
        schema: Pydantic model; it and all models inside must forbid extra keys. Values are taken strictly: no
            text is turned into a number, no number into a boolean.
        yaml_path: Configuration file of at most 256 KiB, in UTF-8; ``modelkit.config.yaml_strict`` says what it may
            hold.
        sets: ``key=value`` as ``--set`` takes them. Keys are dotted, parts that hold a dot are quoted, items
            of a list that the file gives are numbered from 0; the value is YAML. A later one wins.
        flags: Dotted key -> (value, name of the option such as "--bits"). Leave out what was not given.

    Raises:
        ConfigError: With all problems of all layers, each with its file and line or its option.
        UsageError: The file does not exist or is a folder.
        ResourceError: The file cannot be read.
        TypeError: The schema does not forbid extra keys (a mistake in modelkit).
    """
    adapter = TypeAdapter(schema)
    document = adapter.json_schema()
    _require_strict(document)
    tree = Node({}, place=printable(yaml_path.name) if yaml_path is not None else "")
    problems: list[Problem] = []
    layers: list[Callable[[], tuple[Node, list[Problem]]]] = []
    if yaml_path is not None:
        layers.append(partial(_from_file, yaml_path))
    layers += [partial(_from_set, text, number) for number, text in enumerate(sets)]
    layers += [
        partial(_from_flag, key, value, flag, number)
        for number, (key, (value, flag)) in enumerate((flags or {}).items())
    ]
    complete = True
    for layer in layers:
        try:
            node, found = layer()
        except BrokenYamlError as error:
            problems.append(error.args[0])
            complete = False
            continue
        problems += found
        tree = merge(tree, node)
    try:
        # JSON mode is strict about types and still lets text be a path or an enum, and a list a tuple.
        result = adapter.validate_json(json.dumps(plain(tree)), strict=True)
    except ValidationError as error:
        found, more = explain(error, tree, document, complete=complete)
        raise _config_error(problems + found, more, yaml_path) from None
    if problems:
        raise _config_error(problems, 0, yaml_path)
    origins: dict[str, str] = {}
    _collect(result, tree, (), origins)
    return Resolved(result, origins)


def json_schema(schema: type[BaseModel], command: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a command's configuration, for editors and for reading.

    Raises:
        TypeError: The schema does not forbid extra keys.
    """
    document = TypeAdapter(schema).json_schema()
    _require_strict(document)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:modelkit:schema:{command}",
        "title": f"modelkit {command}",
    }
    return {**head, **{key: value for key, value in document.items() if key not in head}}


def as_yaml(value: Resolved[Any] | BaseModel | Mapping[str, Any]) -> str:
    """Write a configuration as YAML which ``resolve`` reads back to the same value."""
    if isinstance(value, Resolved):
        value = value.value
    return dump(to_jsonable_python(value, by_alias=True, inf_nan_mode="constants"))


def _require_strict(document: dict[str, Any]) -> None:
    for part in [document, *document.get("$defs", {}).values()]:
        if "properties" in part and part.get("additionalProperties") is not False:
            raise TypeError(f"the schema {part.get('title')!r} must be declared with extra='forbid'")


def _config_error(problems: list[Problem], more: int, yaml_path: Path | None) -> ConfigError:
    from_file = {problem.order[0] < 2 for problem in problems}
    subject = "the configuration"
    if from_file == {False}:
        subject = "what the options give"
    elif from_file == {True} and yaml_path is not None:
        subject = f"'{printable(str(yaml_path))}'"
    lines = list(dict.fromkeys(problem.text for problem in sorted(problems, key=lambda problem: problem.order)))
    total = len(lines) + more
    count = "1 problem" if total == 1 else f"{total} problems"
    if total > MAX_PROBLEMS:
        lines = [*lines[:MAX_PROBLEMS], f"and {total - MAX_PROBLEMS} more"]
    hint = "`modelkit schema COMMAND` lists every key and what it takes"
    return ConfigError(f"{subject} has {count}", lines, hint)


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise UsageError(f"the configuration '{name}' does not exist", "`modelkit init` writes one") from error
    except IsADirectoryError as error:
        raise UsageError(f"the configuration '{name}' is a folder; a YAML file is expected") from error
    except OSError as error:
        raise ResourceError(f"cannot read the configuration '{name}': {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise BrokenYamlError(Problem((1, 0), f"{name}: larger than {MAX_BYTES // 1024} KiB"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BrokenYamlError(Problem((1, line), f"{name}:{line}: not UTF-8 text")) from error


def _from_file(path: Path) -> tuple[Node, list[Problem]]:
    name = printable(path.name)
    root, problems = parse(_read(path, name), lambda line: f"{name}:{line}", order=lambda line: (1, line))
    if root.value is None:
        root = replace(root, value={})
    if not isinstance(root.value, dict):
        text = f"{root.place}: the file holds {written(plain(root))}; a mapping of keys to values is expected"
        raise BrokenYamlError(Problem(root.order, text))
    return root, problems


def _from_set(text: str, number: int) -> tuple[Node, list[Problem]]:
    order = (2, number)
    place = f"--set {printable(text.strip())}"
    key, equals, value = text.partition("=")
    path = split_key(key.strip())
    if not equals or path is None:
        raise BrokenYamlError(Problem(order, f"{place}: KEY=VALUE is expected, such as weights.bits=4"))
    if not is_unicode(text) or len(value) > MAX_BYTES:
        raise BrokenYamlError(Problem(order, f"{place}: too long, or not valid Unicode"))
    node, problems = parse(value, lambda line: place, order=lambda line: order, anchor=dotted(path))
    return nest(path, node), problems


def _from_flag(key: str, value: object, flag: str, number: int) -> tuple[Node, list[Problem]]:
    order = (3, number)
    try:
        node = from_python(value, flag, order, key)
    except ValueError as error:
        raise BrokenYamlError(Problem(order, f"{flag}: {error}")) from error
    return nest(split_key(key) or (key,), node), []


def _collect(value: object, node: Node | None, path: tuple[str | int, ...], origins: dict[str, str]) -> None:
    """Note the origin of every leaf of a validated value; ``node`` is what was given there, if anything."""
    parts: dict[str | int, object] = {}
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
            parts[alias or name] = getattr(value, name)
    elif isinstance(value, Mapping):
        parts = {str(key): item for key, item in value.items()}
    elif isinstance(value, list | tuple) and any(isinstance(v, BaseModel | Mapping | list) for v in value):
        parts = dict(enumerate(value))
    if not parts and path:
        origins[dotted(path)] = node.place if node is not None and node.place else "default"
    for key, part in parts.items():
        _collect(part, child(node, key), (*path, key), origins)
