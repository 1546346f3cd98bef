"""Cases as a JUnit XML file, valid by the schemas of Ant and of Jenkins."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from modelkit.errors import ResourceError, UsageError
from modelkit.files import Staging, shown
from modelkit.report.cases import Case, Result

_LONGEST = 4000  # characters of one text
_HEAD = 4096


def check_target(path: Path) -> None:
    """Refuse a target that is something else than what ``write`` makes, before any work is done.

    A file of test results is replaced without asking, as all test runners do; nothing else is.

    Raises:
        UsageError: The target is a folder, or a file with other content.
        ResourceError: It cannot be read.
    """
    try:
        if path.is_dir():
            raise UsageError(f"--junit '{shown(path)}' is a folder; name a file")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ResourceError(f"cannot look at '{shown(path)}': {getattr(error, 'strerror', None) or error}") from error
    if head and b"<testsuite" not in head:
        raise UsageError(f"--junit would overwrite '{shown(path)}', which holds no test results", "name another file")


def write(path: Path, suite: str, cases: Sequence[Case]) -> None:
    """Write the cases to a file, in one step.

    Raises:
        UsageError: In the meantime something else is there.
        ResourceError: The file cannot be written; an old one is intact.
    """
    check_target(path)
    content = render(suite, cases)
    with Staging(path.parent) as stage:
        stage.path(path.name).write_bytes(content)
        stage.publish([path.name], force=True)


def render(suite: str, cases: Sequence[Case]) -> bytes:
    """Return the document, in UTF-8.

    Args:
        suite: Name of the suite, such as "modelkit quantize".
        cases: Its cases. Characters that XML cannot hold are spelled out.
    """
    root = ElementTree.Element("testsuites")
    counts = {kind: str(sum(case.result is kind for case in cases)) for kind in Result}
    top = ElementTree.SubElement(
        root,
        "testsuite",
        # The schemas want a host: none of their readers needs to know which.
        hostname="localhost",
        id="0",
        name=_text(suite),
        package="modelkit",
        tests=str(len(cases)),
        failures=counts[Result.FAILED],
        errors=counts[Result.ERROR],
        skipped=counts[Result.SKIPPED],
        time=_seconds(sum(case.seconds for case in cases)),
        timestamp=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
    )
    ElementTree.SubElement(top, "properties")
    for case in cases:
        _add(top, case)
    ElementTree.SubElement(top, "system-out")
    ElementTree.SubElement(top, "system-err")
    ElementTree.indent(root)
    buffer = io.BytesIO()
    ElementTree.ElementTree(root).write(buffer, encoding="utf-8", xml_declaration=True)
    return buffer.getvalue() + b"\n"


_ELEMENTS = {Result.FAILED: "failure", Result.ERROR: "error", Result.SKIPPED: "skipped"}


def _add(suite: ElementTree.Element, case: Case) -> None:
    name, subject = _text(case.name) or "case", _text(case.subject) or "modelkit"
    entry = ElementTree.SubElement(suite, "testcase", name=name, classname=subject, time=_seconds(case.seconds))
    tag = _ELEMENTS.get(case.result)
    if tag is None:
        return
    outcome = ElementTree.SubElement(entry, tag, message=_text(case.message))
    if tag != "skipped":
        outcome.set("type", _text(case.kind) or tag)
    lines = [case.file and f"file: {case.file}", *case.detail.splitlines()]
    outcome.text = "\n".join(_text(line) for line in lines if line) or None


def _text(text: str) -> str:
    """One line that XML can hold: it has no control characters, no halves of surrogate pairs, no non-characters."""
    return shown(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)")


def _seconds(value: float) -> str:
    return f"{max(value, 0.0):.3f}"
