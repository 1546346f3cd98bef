"""XML written with everything escaped, and read by expat without document types, which could declare entities."""

from __future__ import annotations

import xml.etree.ElementTree as ET  # only its writer is used on text from outside; reading is done below
from xml.parsers import expat

from modelkit.errors import ConfigError

MAX_BYTES = 64 << 20
MAX_ELEMENTS = 2_000_000
MAX_DEPTH = 1000

FORBIDDEN = "".join(chr(code) for code in range(32) if code not in (9, 10, 13)) + "\ufffe\uffff"
"""Characters that XML 1.0 has no way to write."""


def write(root: ET.Element) -> str:
    """The document, indented, in UTF-8."""
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def child(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    """Append an element."""
    found = ET.SubElement(parent, tag, attributes)
    found.text = text
    return found


def broken(what: str) -> ConfigError:
    """The error for a document that is not what it should be."""
    return ConfigError("the document cannot be read", [what])


def read(text: str | bytes, namespace: str) -> ET.Element:
    """Read a document whose elements are all of one namespace; tags come back without it.

    Raises:
        ConfigError: It is no well-formed XML, has a document type (which could declare entities), elements of
            another namespace, or is too large or nested too deep.
    """
    data = text.encode("utf-8") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise broken(f"it is larger than {MAX_BYTES >> 20} MiB")
    reader = _Reader(namespace)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise broken(f"line {error.lineno}: {expat.ErrorString(error.code)}") from error
    return reader.builder.close()


class _Reader:
    """Handlers of one parser."""

    def __init__(self, namespace: str) -> None:
        self.builder = ET.TreeBuilder()
        self._prefix, self._depth, self._count = f"{namespace} ", 0, 0
        self.parser = expat.ParserCreate("utf-8", " ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self.builder.data
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.ProcessingInstructionHandler = self._refuse

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise broken("it is nested too deep or has too many elements")
        if not tag.startswith(self._prefix):
            raise broken(f"line {self.parser.CurrentLineNumber}: an element is not of '{self._prefix.strip()}'")
        self.builder.start(tag.removeprefix(self._prefix), attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self.builder.end(tag.removeprefix(self._prefix))

    def _refuse(self, *_: object) -> None:
        raise broken(f"line {self.parser.CurrentLineNumber}: document types and instructions are refused")
