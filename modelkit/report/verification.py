"""What verifying a report found, line by line: as a table, JSON, Markdown and cases."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from rich.console import RenderableType

from modelkit.report.cases import Case, Result
from modelkit.report.markdown import escape
from modelkit.report.markdown import table as as_markdown
from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled

SCHEMA = "modelkit.verification/1"


class Outcome(StrEnum):
    """How a figure compares with what the report says."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Check:
    """One figure of a report, found out again.

    Attributes:
        name: What.
        outcome: How it compares.
        reported: What the report says.
        found: What is so now; empty where nothing was found out.
        reason: Why it differs or was not checked, where the figures do not say it.
    """

    name: str
    outcome: Outcome
    reported: str
    found: str = ""
    reason: str = ""


@dataclass
class Verification:
    """What verifying a report found.

    Attributes:
        report: Name of the report's file.
        command: The command that made it.
        method: What the report says was done.
        checks: Line by line.
        notes: What a reader must know.
        machine: The machine that verified.
    """

    report: str
    command: str
    method: str
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, reported: str, found: str, agrees: bool, reason: str = "") -> bool:
        """Add a figure that was found out; returns whether it agrees."""
        outcome = Outcome.AGREES if agrees else Outcome.DIFFERS
        if not agrees and reported == found:
            reason = reason or "rounded for reading they look the same"
        self.checks.append(Check(name, outcome, reported, found, reason))
        return agrees

    def skip(self, name: str, reported: str, reason: str) -> None:
        """Add a figure that was not found out."""
        self.checks.append(Check(name, Outcome.UNCHECKED, reported, "", reason))

    def of(self, outcome: Outcome) -> list[Check]:
        """The checks that ended in one way."""
        return [check for check in self.checks if check.outcome is outcome]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, schema first."""
        status = Outcome.DIFFERS if self.of(Outcome.DIFFERS) else Outcome.AGREES
        return {"schema": SCHEMA, "status": str(status), **asdict(self)}


def line(check: Check) -> str:
    """A check on one line: ``artifact bytes: 100 reported, 90 found``."""
    parts = [f"{check.reported} reported"] + ([f"{check.found} found"] if check.found else [])
    return f"{check.name}: {', '.join(parts)}{f': {check.reason}' if check.reason else ''}"


_STYLES = {Outcome.DIFFERS: "red", Outcome.UNCHECKED: "yellow"}


def render(found: Verification) -> RenderableType:
    """Lay a verification out for rich."""
    numbers = ("reported", "found")
    table = new_table("what", *numbers, "", numbers=numbers, whole=("",))
    for check in found.checks:
        add_row(
            table, check.name, check.reported, check.found or "-", check.outcome, style=_STYLES.get(check.outcome)
        )
    parts: list[RenderableType] = [titled(f"{found.report}: {found.command}, {found.method}", table)]
    reasons = {check.reason: [c.name for c in found.checks if c.reason == check.reason] for check in found.checks}
    told = [(_counted(names), reason) for reason, names in reasons.items() if reason]
    if told:
        parts.append(titled("Why", pairs(told)))
    if found.notes:
        parts.append(notes(found.notes))
    return stack(parts)


def _counted(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def markdown(found: Verification) -> str:
    """Return a verification as Markdown."""
    body = [(check.name, check.reported, check.found or "-", check.outcome, check.reason) for check in found.checks]
    lines = [f"# {escape(f'{found.report}: {found.command}, {found.method}')}", ""]
    lines += as_markdown(["what", "reported", "found", "", "why"], body)
    lines += ["", *[f"- note: {escape(note)}" for note in found.notes]] if found.notes else []
    return "\n".join(lines) + "\n"


_RESULTS = {
    Outcome.AGREES: Result.PASSED,
    Outcome.DIFFERS: Result.FAILED,
    Outcome.UNCHECKED: Result.SKIPPED,
}


def cases(found: Verification, file: str) -> list[Case]:
    """A case for each line.

    Args:
        found: The verification.
        file: Path of the report, as it was named.
    """
    return [
        Case(check.name, found.report, _RESULTS[check.outcome], line(check), kind=check.outcome, file=file)
        for check in found.checks
    ]
