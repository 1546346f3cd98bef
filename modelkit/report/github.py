"""Cases as GitHub Actions shows them: annotations and a step summary, within GitHub's limits.

The limits are GitHub's own: of each type it shows ten annotations for a step, and a step's summary of more than 1 MiB
is not shown at all (https://docs.github.com/actions/reference/workflow-commands-for-github-actions).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from modelkit.errors import ResourceError
from modelkit.files import shown
from modelkit.report.cases import Case, Result, counted
from modelkit.report.markdown import escape, table

MOST_ANNOTATIONS = 10
MOST_SUMMARY_BYTES = 1 << 20
_LONGEST = 4000  # characters of a message
_CUT = "\n\nThe rest was cut: GitHub shows 1 MiB of a step's summary.\n"


def workflow_commands(cases: Sequence[Case], command: str, root: Path | None) -> list[str]:
    """Return workflow commands, a line each: errors for what failed, warnings for what was skipped.

    Args:
        cases: The cases.
        command: What ran, for the titles: "modelkit quantize".
        root: The checkout; only files below it can be shown in place.
    """
    lines = []
    for kind, chosen in (
        ("error", [case for case in cases if case.bad]),
        ("warning", [case for case in cases if case.result is Result.SKIPPED]),
    ):
        # The last place says how many there is no place for.
        fits = len(chosen) <= MOST_ANNOTATIONS
        for case in chosen if fits else chosen[: MOST_ANNOTATIONS - 1]:
            said = f"{case.subject}: {case.message or case.name}"
            lines.append(_command(kind, f"{command}: {case.name}", said, _place(case.file, root)))
        if not fits:
            more = len(chosen) - MOST_ANNOTATIONS + 1
            lines.append(_command(kind, command, f"and {more} more: the summary of this step has all of them"))
    return lines


def _command(kind: str, title: str, message: str, file: str | None = None) -> str:
    properties = {"file": file, "title": title}
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{kind} {given}::{_data(message)}"


def _place(file: str, root: Path | None) -> str | None:
    """The path below the checkout; None where it is not below."""
    if not file or root is None:
        return None
    try:
        return Path(file).resolve().relative_to(root.resolve()).as_posix()
    except (OSError, RuntimeError, ValueError):
        return None


def _data(text: str) -> str:
    """A message: it ends with its line, so control characters are spelled out first."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return shown(cut).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A property's value, which must not end at a colon or a comma of its own."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def stop_commands() -> tuple[str, str]:
    """Two lines between which GitHub obeys nothing that is printed, whatever names a model has."""
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}", f"::{token}::"


def page(cases: Sequence[Case], command: str, body: str = "") -> str:
    """The step summary, in Markdown.

    Args:
        cases: The cases.
        command: What ran.
        body: More of it, in Markdown: the tables of a report.
    """
    lines = [f"## {escape(command)}: {escape(counted(cases))}", ""]
    rows = [(case.subject, case.name, case.result, case.message) for case in sorted(cases, key=_worst_first)]
    lines += [*table(["of", "check", "", "found"], rows, names=1), ""] if rows else []
    return "\n".join(lines) + (f"\n{body}" if body else "")


def _worst_first(case: Case) -> int:
    return [Result.ERROR, Result.FAILED, Result.SKIPPED, Result.PASSED].index(case.result)


def append_summary(path: Path, text: str) -> bool:
    """Add to a step's summary, cut so that all of it stays within the limit.

    Args:
        path: What ``GITHUB_STEP_SUMMARY`` names.
        text: Markdown.

    Returns:
        Whether all of it found room.

    Raises:
        ResourceError: The file cannot be written.
    """
    content = ("\n" + text).encode("utf-8", "backslashreplace")
    try:
        with path.open("ab") as file:
            room = MOST_SUMMARY_BYTES - file.tell()
            whole = len(content) <= room
            if not whole:
                # Cut at the end of a line, so that no character and no row of a table is broken.
                kept = content[: max(room - len(_CUT.encode()), 0)]
                content = kept[: kept.rfind(b"\n") + 1] + _CUT.encode() if b"\n" in kept else b""
            file.write(content)
    except OSError as error:
        raise ResourceError(
            f"cannot write the step summary '{shown(path)}': {error.strerror or error}",
            "GITHUB_STEP_SUMMARY names it; without --github it is not needed",
        ) from error
    return whole
