"""Read YAML strictly: plain values only, every value with its line, every problem at once; and write it back.

Scalars follow the core schema of YAML 1.2, because that of 1.1 turns ``on``, ``1:30`` and ``010`` into
something else: ``true`` and ``false`` are the only booleans; ``~``, ``null`` and nothing at all are null;
integers are decimal (``010`` is ten), ``0o17`` or ``0xff``; floats may be ``1e-3``, ``.inf`` or ``.nan``;
everything else, dates and ``yes`` included, is text. Keys are always text, as written. Tags other than
those of the core schema, merge keys, several documents and deep or much expanded structures are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import yaml

from modelkit.config.nodes import MAX_DEPTH, Node, Path, Problem, Scalar, dotted, is_unicode, printable

MAX_BYTES = 256 * 1024
MAX_VALUES = 20_000
_MAX_DIGITS = 300


class BrokenYamlError(Exception):
    """The text is no usable YAML at all; ``args[0]`` is the Problem."""


_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_BASES = {"0o": 8, "0x": 16}


def core_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar by the core schema of YAML 1.2.

    Raises:
        ValueError: An integer with more than 300 digits.
    """
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number with {len(text)} digits")
        return int(text, _BASES.get(text[:2], 10))
    if _FLOAT.match(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def parse(
    text: str,
    place: Callable[[int], str],
    *,
    order: Callable[[int], tuple[int, int]] = lambda line: (0, line),
    anchor: str | None = None,
    max_values: int = MAX_VALUES,
) -> tuple[Node, list[Problem]]:
    """Parse one document.

    Args:
        text: The document.
        place: Gives the place to name for a line number (from 1).
        order: Gives the order of what stands in that line.
        anchor: Dotted key under which the values will stand, for options.
        max_values: How many values there may be, aliases expanded. Above the default, libyaml reads the text
            where PyYAML has it: ten times as fast, with other words for syntax errors.

    Returns:
        The root (an empty document is null), and problems that did not stop the reading.

    Raises:
        BrokenYamlError: It could not be read to its end.
    """
    builder = _Builder(place, order, anchor, max_values)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader) if max_values > MAX_VALUES else yaml.SafeLoader
    try:
        root = builder.document(yaml.parse(text, Loader=loader))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise builder.broken(line, f"the character U+{code:04X} is not allowed in YAML") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise builder.broken(mark.line + 1 if mark else 1, _syntax(error)) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # PyYAML's scanner lets some escapes and directives through to int() and chr().
        raise builder.broken(builder.line, "not valid YAML") from error
    return root, builder.problems


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or error.context or "syntax error").replace("\n", " ")
    if "'\\t'" in problem:
        return "a tab stands where YAML needs spaces"
    if "mapping values are not allowed" in problem:
        return "not valid YAML: a second ':' on the line, or wrong indentation (quote text that holds ': ')"
    if "expected <block end>" in problem:
        return "not valid YAML: the indentation does not fit the lines above"
    return f"not valid YAML: {printable(problem)}"


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _span(event: yaml.Event) -> tuple[int, int] | None:
    start, end = event.start_mark, event.end_mark
    return (start.index, end.index) if start is not None and end is not None else None


class _Builder:
    """Builds nodes from the parser's events, so that depth and aliases are checked before memory is spent."""

    def __init__(
        self,
        place: Callable[[int], str],
        order: Callable[[int], tuple[int, int]],
        anchor: str | None,
        max_values: int,
    ) -> None:
        self.problems: list[Problem] = []
        self.line = 1
        self._place = place
        self._order = order
        self._anchor = anchor
        self._max_values = max_values
        self._anchors: dict[str, Node | None] = {}

    def document(self, events: Iterator[yaml.Event]) -> Node:
        root = self._node(None)
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._report(event, "a second document begins here; one is expected")
                    break
            elif isinstance(event, yaml.NodeEvent):
                root = self._build(event, events, ())
        return root

    def broken(self, line: int, text: str) -> BrokenYamlError:
        return BrokenYamlError(Problem(self._order(line), f"{self._place(line)}: {text}"))

    def _report(self, event: yaml.Event, text: str) -> None:
        line = _line(event)
        self.problems.append(Problem(self._order(line), f"{self._place(line)}: {text}"))

    def _node(self, value: Scalar | list[Node] | dict[str, Node], size: int = 1) -> Node:
        return Node(value, self._place(self.line), self._order(self.line), self._anchor, size)

    def _build(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Node:
        self.line = _line(event)
        if len(path) > MAX_DEPTH:
            raise self.broken(self.line, f"values are nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        known = len(self.problems)
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if anchor is not None:
            self._anchors[anchor] = None  # not complete yet
        if isinstance(event, yaml.ScalarEvent):
            node = replace(self._scalar(event), span=_span(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, events, path)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, events, path)
        else:
            raise self.broken(self.line, "not valid YAML")
        if len(self.problems) > known and isinstance(event, yaml.ScalarEvent):
            node = replace(node, faulty=True)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        if event.anchor not in self._anchors:
            raise self.broken(self.line, f"the alias '*{event.anchor}' has no anchor before it")
        node = self._anchors[event.anchor]
        if node is None:
            raise self.broken(self.line, f"the alias '*{event.anchor}' refers to itself")
        return node

    def _tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, known: tuple[str, ...]) -> str | None:
        """The short name of an explicit tag, if any; a tag that is not known is a problem."""
        if event.tag is None or event.tag == "!":
            return None
        short = str(event.tag).removeprefix(_TAG)
        if short not in known:
            written = event.tag.replace(_TAG, "!!")
            self._report(event, f"the tag {written!a} is not allowed; values are plain")
            return None
        return short

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        text = event.value
        tag = self._tag(event, ("str", "int", "float", "bool", "null"))
        if not is_unicode(text):
            self._report(event, "a text holds half a character (a lone surrogate)")
            text = ""
        plain = event.style is None or event.style == ""
        if tag == "str" or event.tag == "!" or (tag is None and not plain):
            return self._node(text)
        try:
            value = core_scalar(text)
        except ValueError as error:
            self._report(event, f"{error} is too long")
            value = 0
        if tag == "float" and type(value) is int:
            value = float(value) if abs(value) < 1 << 1000 else float("inf")
        if tag is not None and type(value) is not {"int": int, "float": float, "bool": bool}.get(tag, type(None)):
            self._report(event, f"{text[:60]!a} does not fit its tag !!{tag}")
        return self._node(value)

    def _sequence(self, event: yaml.SequenceStartEvent, events: Iterator[yaml.Event], path: Path) -> Node:
        self._tag(event, ("seq",))
        line = self.line
        items: list[Node] = []
        size = 1
        for inner in events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            node = self._build(inner, events, (*path, len(items)))
            here = _line(inner)
            items.append(replace(node, place=self._place(here), order=self._order(here)))
            size = self._grow(size, node)
        self.line = line
        return self._node(items, size)

    def _mapping(self, event: yaml.MappingStartEvent, events: Iterator[yaml.Event], path: Path) -> Node:
        self._tag(event, ("map",))
        line = self.line
        entries: dict[str, Node] = {}
        size = 1
        for inner in events:
            if isinstance(inner, yaml.MappingEndEvent):
                break
            here = _line(inner)
            key = self._key(inner, events, path)
            node = self._build(next(events), events, (*path, key or ""))
            size = self._grow(size, node)
            if key is None:
                continue
            if key in entries:
                first = entries[key].place
                self._report(inner, f"the key '{printable(dotted((*path, key)))}' is given twice, first at {first}")
                continue
            # A key's line, not its value's: that is where a reader looks for it.
            entries[key] = replace(node, place=self._place(here), order=self._order(here))
        self.line = line
        return self._node(entries, size)

    def _key(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> str | None:
        """The text of a key; None, and a problem, where it cannot be used."""
        self.line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._report(event, "a key must be plain text")
            self._build(event, events, (*path, ""))
            return None
        self._tag(event, ("str", "int", "float", "bool", "null"))
        if event.anchor is not None:
            self._anchors[event.anchor] = self._node(event.value)
        if event.value == "<<" and not event.style:
            self._report(event, "merge keys ('<<') are not supported; write the values out")
            return None
        if not is_unicode(event.value):
            self._report(event, "a key holds half a character (a lone surrogate)")
            return None
        return str(event.value)

    def _grow(self, size: int, node: Node) -> int:
        if size + node.size > self._max_values:
            raise self.broken(self.line, f"more than {self._max_values} values, aliases expanded")
        return size + node.size


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that ``core_scalar`` would not read back as text."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - the class attribute that PyYAML reads

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_str(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds the rarer line breaks in its single-quoted style.
    style = '"' if re.search("[\r\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_TAG + "str", text, style)


_Dumper.add_representer(str, _represent_str)
_MERGE = re.compile(r"<<\Z")
for _name, _pattern in (
    ("null", _NULL),
    ("bool", _BOOL),
    ("int", _INT),
    ("float", _FLOAT),
    ("merge", _MERGE),
):
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, None)


def dump(value: object) -> str:
    """Write plain values as YAML that ``parse`` reads back unchanged: block style, given order."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1 << 30
    )
