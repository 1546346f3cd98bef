"""Turn pydantic's errors into lines that name the place, the key, what was found and what was expected.

Pydantic's locations are not paths into the data: they also hold union members and discriminator tags. They
are followed here through the data and the JSON Schema together, which also knows bounds and the known keys.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from modelkit.config.nodes import Node, Path, Problem, dotted, plain, printable, written

Schemas = list[dict[str, Any]]

MAX_PROBLEMS = 100

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of a usual size",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dataclass_type": "a mapping of keys to values",
    "none_required": "null",
}
_BOUNDS = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_BOUND_KEYS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


@dataclass
class _Located:
    """An error with its path in the data and the deepest node given there.

    Attributes:
        error: As pydantic gives it.
        path: Keys and indices only.
        node: Deepest node on the path.
        schemas: Alternatives that the node may be, references followed.
        own: The same as declared.
        parent: Those of the mapping or list that holds it.
        members: Union members tried on the way, with the path of the union.
    """

    error: ErrorDetails
    path: Path
    node: Node
    schemas: Schemas
    own: Schemas
    parent: Schemas
    members: list[tuple[Path, str]]


def explain(
    error: ValidationError, tree: Node, document: dict[str, Any], *, complete: bool
) -> tuple[list[Problem], int]:
    """Translate the errors of one validation.

    Args:
        error: What pydantic raised for the plain values of ``tree``.
        tree: The merged layers.
        document: JSON Schema of the validated type.
        complete: False where a layer could not be read, so that missing keys mean nothing.

    Returns:
        The first problems (no more than anyone would read), and how many more there are.
    """
    walker = _Walker(document)
    found = [walker.locate(details, tree) for details in error.errors(include_url=False)]
    found = [item for item in found if not item.node.faulty and (complete or not _is_missing_key(item))]
    problems: list[Problem] = []
    grouped: dict[Path, list[_Located]] = {}
    for item in _without_wrong_members(found):
        grouped.setdefault(item.path, []).append(item)
    groups = sorted(grouped.values(), key=lambda items: items[0].node.order)
    for items in groups[:MAX_PROBLEMS]:
        alternatives = [e for item in items if (e := _expectation(item))]
        first = items[0]
        if len(alternatives) == len(items):
            text = _is_not(first, list(dict.fromkeys(alternatives)))
            problems.append(Problem(first.node.order, _placed(first.node, first.path, text)))
            continue
        problems += [Problem(item.node.order, _sentence(item, walker)) for item in items]
    return problems, max(0, len(groups) - MAX_PROBLEMS)


def _is_missing_key(item: _Located) -> bool:
    kind, path = item.error["type"], item.path
    return kind == "union_tag_not_found" or (kind == "missing" and bool(path) and isinstance(path[-1], str))


def _placed(node: Node, path: Path, text: str) -> str:
    """Put the place and, where the place does not say it already, the key in front."""
    key = dotted(path)
    parts = [node.place, "" if key == node.anchor else printable(key, 200), text]
    return ": ".join(part for part in parts if part)


def _without_wrong_members(found: list[_Located]) -> list[_Located]:
    """Drop the complaints of union members that the value was never meant for.

    Where one member of a union got as far as the parts of a value, those that refuse it whole are noise.
    """
    entered = {(at, member) for item in found for at, member in item.members if len(item.path) > len(at)}
    prefixes = {at for at, _ in entered}
    return [
        item for item in found if all((at, member) in entered or at not in prefixes for at, member in item.members)
    ]


def _expectation(item: _Located) -> str | None:
    """What the error expected, to stand after "is not"; None where that form does not fit."""
    kind, context = item.error["type"], item.error.get("ctx", {})
    if item.error["loc"] and item.error["loc"][-1] == "[key]":
        return None
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in ("literal_error", "enum"):
        choices = _choices(str(context["expected"]))
        return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
    if kind in _BOUNDS:
        return _bounds(item.schemas, context)
    if kind == "multiple_of":
        return f"a multiple of {context['multiple_of']}"
    if kind == "string_too_short":
        return f"text of at least {context['min_length']} characters"
    if kind == "string_too_long":
        return f"text of at most {context['max_length']} characters"
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    if kind == "too_short":
        return f"a list of at least {context['min_length']}"
    if kind == "too_long":
        return f"a list of at most {context['max_length']}"
    return None


def _choices(expected: str) -> list[str]:
    return re.split(r", | or ", expected)


def _bounds(schemas: Schemas, context: dict[str, Any]) -> str:
    """Both bounds of a number, from its JSON Schema or, where that lacks them, the broken one."""
    limits: dict[str, Any] = {}
    for schema in schemas:
        limits |= {key: schema[key] for key in _BOUND_KEYS.values() if key in schema}
    if not limits:
        limits = {_BOUND_KEYS[key]: value for key, value in context.items() if key in _BOUND_KEYS}
    if limits.keys() == {"minimum", "maximum"}:
        return f"between {limits['minimum']} and {limits['maximum']}"
    words = {
        "exclusiveMinimum": "more than",
        "minimum": "at least",
        "exclusiveMaximum": "less than",
        "maximum": "at most",
    }
    return " and ".join(f"{word} {limits[key]}" for key, word in words.items() if key in limits)


def _is_not(item: _Located, expected: list[str]) -> str:
    value = item.error["input"]
    text = f"{written(value)} is not {' or '.join(expected)}"
    return text + _advice(value, item)


def _advice(value: object, item: _Located) -> str:
    kind = item.error["type"]
    from_yaml = not item.node.place.startswith("--") or item.node.place.startswith("--set")
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f" (write {value:.0f})"
    if kind in ("int_type", "float_type") and isinstance(value, str) and from_yaml:
        return " (leave the quotes out)" if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", value) else ""
    if kind == "bool_type" and isinstance(value, str):
        answer = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
        return f" (write {answer[value.lower()]})" if value.lower() in answer else ""
    if kind in ("literal_error", "enum") and isinstance(value, str):
        choices = [choice.strip("'") for choice in _choices(str(item.error["ctx"]["expected"]))]
        return _did_you_mean(value, choices)
    return ""


def _did_you_mean(name: str, known: Sequence[str], prefix: str = "") -> str:
    lower = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower()[:200], lower, n=1)
    return f" (did you mean '{prefix}{lower[near[0]]}'?)" if near else ""


def _sentence(item: _Located, walker: _Walker) -> str:
    """A whole line for the errors that are no plain "is not"."""
    error, path, node = item.error, item.path, item.node
    kind, context = error["type"], error.get("ctx", {})
    where = f"{node.place}: " if node.place else ""
    if kind == "extra_forbidden":
        known = walker.keys(item.parent)
        prefix = dotted(path[:-1]) + "." if len(path) > 1 else ""
        advice = walker.elsewhere(path) or _did_you_mean(str(path[-1]), known, prefix)
        if not advice and 0 < len(known) <= 20:
            advice = f" (known here: {', '.join(known)})"
        return f"{where}unknown key '{printable(dotted(path), 200)}'{advice}"
    if kind == "missing":
        if path and isinstance(path[-1], int):
            return _placed(node, path[:-1], f"item {path[-1] + 1} of the list is missing")
        return f"{where}the key '{printable(dotted(path), 200)}' is missing"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        name = str(context["discriminator"]).strip("'")
        choices = walker.tags(item.own)
        if kind == "union_tag_not_found":
            if not isinstance(node.value, dict):
                return _placed(node, path, f"{written(plain(node))} is not a mapping of keys to values")
            key = printable(dotted((*path, name)), 200)
            return f"{where}the key '{key}' is missing; one of {', '.join(choices)} is expected"
        tag = node.value.get(name, node) if isinstance(node.value, dict) else node
        value = str(context["tag"])
        expected = ", ".join(choices)
        advice = _did_you_mean(value, [choice.strip("'") for choice in choices])
        return _placed(tag, (*path, name), f"{written(value)} is not one of {expected}{advice}")
    if error["loc"] and error["loc"][-1] == "[key]":
        expected = _EXPECTED.get(kind, "a valid key")
        return _placed(node, path, f"the key is not {expected}")
    if kind in ("value_error", "assertion_error") and "error" in context:
        return _placed(node, path, printable(str(context["error"]), 500))
    message = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return _placed(node, path, f"{written(error['input'])} is wrong: {printable(message, 300)}")


class _Walker:
    """Follows paths through a JSON Schema."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def locate(self, error: ErrorDetails, tree: Node) -> _Located:
        schemas, parent, node = [self._document], [self._document], tree
        path: Path = ()
        members: list[tuple[Path, str]] = []
        location = error["loc"]
        for index, part in enumerate(location):
            value = node.value
            name = str(part)
            tag = self._tag(schemas, value)
            if tag is not None and tag[0] == name:
                schemas = [tag[1]]
            elif isinstance(value, dict) and name in value:
                parent, schemas = schemas, self._step(schemas, name, value)
                node, path = value[name], (*path, name)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                parent, schemas = schemas, self._step(schemas, part, value)
                node, path = value[part], (*path, part)
            elif error["type"] == "missing" and index == len(location) - 1:
                parent, path = schemas, (*path, part)
            else:
                members.append((path, name))
        return _Located(error, path, node, self._flat(schemas, node.value), schemas, parent, members)

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._document["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        return schema

    def _flat(self, schemas: Schemas, value: object) -> Schemas:
        """All alternatives, references followed; of a tagged union only the member that the value names."""
        flat: Schemas = []
        for schema in map(self._resolve, schemas):
            tag = self._tag([schema], value)
            if tag is not None:
                flat += self._flat([tag[1]], value)
                continue
            inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
            flat += self._flat(inner, value) if inner else [schema]
        return flat

    def _tag(self, schemas: Schemas, value: object) -> tuple[str, dict[str, Any]] | None:
        """The tag that a value gives for a tagged union among the schemas, and the member it names."""
        if not isinstance(value, dict):
            return None
        for schema in map(self._resolve, schemas):
            discriminator = schema.get("discriminator")
            if discriminator is None:
                nested = self._tag(schema.get("anyOf", []), value)
                if nested is not None:
                    return nested
                continue
            given = value.get(discriminator["propertyName"])
            member = discriminator["mapping"].get(str(given.value)) if isinstance(given, Node) else None
            if member is not None and isinstance(given, Node):
                return str(given.value), self._resolve({"$ref": member})
        return None

    def _step(self, schemas: Schemas, part: str | int, value: object) -> Schemas:
        found: Schemas = []
        for schema in self._flat(schemas, value):
            if isinstance(part, int):
                fixed = schema.get("prefixItems", [])
                found += [fixed[part]] if part < len(fixed) else []
                found += [schema["items"]] if isinstance(schema.get("items"), dict) else []
            elif part in schema.get("properties", {}):
                found.append(schema["properties"][part])
            elif isinstance(schema.get("additionalProperties"), dict):
                found.append(schema["additionalProperties"])
        return found

    def keys(self, schemas: Schemas) -> list[str]:
        """The keys that mappings of these schemas take, in the order of their declaration."""
        names: dict[str, None] = {}
        for schema in self._flat(schemas, None):
            names |= dict.fromkeys(schema.get("properties", {}))
        return list(names)

    def tags(self, schemas: Schemas) -> list[str]:
        """The tags of the tagged union among these schemas."""
        for schema in map(self._resolve, schemas):
            for option in [schema, *map(self._resolve, schema.get("anyOf", []))]:
                if "discriminator" in option:
                    return [f"'{tag}'" for tag in option["discriminator"]["mapping"]]
        return []

    def elsewhere(self, path: Path) -> str:
        """A hint where the last key of a path is known in another section, up to two levels down."""
        level: list[tuple[Path, Schemas]] = [((), [self._document])]
        for _ in range(3):
            deeper: list[tuple[Path, Schemas]] = []
            for section, schemas in level:
                names = self.keys(schemas)
                if path[-1] in names and section != path[:-1]:
                    return f" (did you mean '{dotted((*section, path[-1]))}'?)"
                deeper += [((*section, name), self._step(schemas, name, None)) for name in names]
            level = deeper
        return ""
