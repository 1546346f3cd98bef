"""Configuration values that know where they were given, and how layers of them are merged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import PurePath

MAX_DEPTH = 50

Scalar = str | int | float | bool | None
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Node:
    """A value and where it was given.

    Attributes:
        value: A scalar, a list of nodes, or a mapping from text to nodes.
        place: Such as "quantize.yaml:12" or "--bits"; empty for a value that nobody gave.
        order: Layer and line, by which problems are sorted.
        anchor: Dotted key that an option named; None for what stands in a file.
        size: Number of values in it, aliases expanded.
        faulty: A problem was reported already; what does not fit after that is no news.
        span: Where a scalar begins and ends in the text of its document, in characters, quotes included.
    """

    value: Scalar | list[Node] | dict[str, Node]
    place: str = ""
    order: tuple[int, int] = (0, 0)
    anchor: str | None = None
    size: int = 1
    faulty: bool = False
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Problem:
    """One line for a person, and the order of its cause (layer, line)."""

    order: tuple[int, int]
    text: str


def printable(text: str, limit: int = 80) -> str:
    """A text on one line, control characters escaped, shortened in the middle."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 4 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_unicode(text: str) -> bool:
    """False where a text holds lone surrogates, which neither YAML nor JSON can hold."""
    return re.search("[\ud800-\udfff]", text) is None


def dotted(path: Path) -> str:
    """Join a path to a dotted key; parts that hold a dot, or nothing, are quoted."""
    return ".".join(f'"{p}"' if isinstance(p, str) and ("." in p or not p) else str(p) for p in path)


def split_key(key: str) -> tuple[str, ...] | None:
    """The parts of a dotted key; None where it is not well formed or too deep."""
    part = r'(?:"[^"]*"|[^".]+)'
    if re.fullmatch(rf"{part}(?:\.{part})*", key) is None:
        return None
    parts = tuple(quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|([^".]+)', key))
    return parts if len(parts) <= MAX_DEPTH else None


def from_python(value: object, place: str, order: tuple[int, int], anchor: str) -> Node:
    """Wrap an option's value: scalars, enums, paths, and lists or mappings of them.

    Raises:
        TypeError: The value is of another kind.
        ValueError: A text in it is not valid Unicode (a path may hold any bytes).
    """
    inner: Scalar | list[Node] | dict[str, Node]
    if isinstance(value, Enum):
        return from_python(value.value, place, order, anchor)
    if isinstance(value, PurePath):
        return from_python(str(value), place, order, anchor)
    if isinstance(value, Mapping):
        inner = {str(key): from_python(item, place, order, anchor) for key, item in value.items()}
    elif isinstance(value, Set):
        inner = [from_python(item, place, order, anchor) for item in sorted(value)]
    elif isinstance(value, list | tuple):
        inner = [from_python(item, place, order, anchor) for item in value]
    elif value is None or isinstance(value, bool | int | float | str):
        if isinstance(value, str) and not is_unicode(value):
            raise ValueError("the text is not valid Unicode")
        inner = value
    else:
        raise TypeError(f"{place}: a {type(value).__name__} cannot stand in a configuration")
    return Node(inner, place, order, anchor)


def nest(path: tuple[str, ...], node: Node) -> Node:
    """Put a node under a path, in mappings that share its place."""
    for part in reversed(path):
        node = replace(node, value={part: node})
    return node


def merge(under: Node, over: Node) -> Node:
    """Lay one node over another: mappings key by key, numbered items into a list, anything else replaces."""
    if isinstance(over.value, dict) and isinstance(under.value, dict):
        merged = dict(under.value)
        for key, node in over.value.items():
            merged[key] = merge(merged[key], node) if key in merged else node
        return replace(under, value=merged)
    if isinstance(over.value, dict) and isinstance(under.value, list) and over.value:
        items = list(under.value)
        for key, node in over.value.items():
            if not re.fullmatch(r"[0-9]{1,6}", key) or int(key) >= len(items):
                return over
            items[int(key)] = merge(items[int(key)], node)
        return replace(under, value=items)
    return over


def plain(node: Node) -> object:
    """The value without its places."""
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


def child(node: Node | None, part: str | int) -> Node | None:
    """Where a part of a validated value was given; None for a default.

    What a validator made from one scalar was given where that scalar stands.
    """
    if node is None:
        return None
    if isinstance(node.value, dict):
        return node.value.get(str(part))
    if isinstance(node.value, list):
        return node.value[part] if isinstance(part, int) and part < len(node.value) else node
    return node


def written(value: object) -> str:
    """A value as an error shows it."""
    if isinstance(value, str):
        return f"'{printable(value, 60)}'"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("inf", ".inf").replace("nan", ".nan")
    return printable(json.dumps(value, ensure_ascii=False, default=str), 60)
