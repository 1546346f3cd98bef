"""What a check of a rule set found: findings with rows that show them, and what is proved about the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelkit.rules.model import RuleSet
from modelkit.rules.search import State, Verdict
from modelkit.rules.table import Row, shown_row

SCHEMA = "modelkit.rules.check/1"


class Level(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Kind(StrEnum):
    """What is the matter."""

    DEAD = "contradiction"
    SHADOWED = "shadowed"
    OVERLAP = "overlap"
    CONFLICT = "conflict"
    GAP = "gap"
    CLAIM = "claim"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: What it is.
        level: How bad it is.
        rules: Names of the rules concerned, in order.
        text: A sentence for people.
        rows: Rows that show it; each was evaluated and does show it.
    """

    kind: Kind
    level: Level
    rules: tuple[str, ...]
    text: str
    rows: tuple[Row, ...] = ()


@dataclass
class CheckReport:
    """Everything that a check found.

    Attributes:
        rules: The rule set.
        findings: What was found, errors first.
        complete: Whether every row that can occur makes a rule fire.
        consistent: Whether no row makes rules with different outcomes fire.
        disjoint: Whether no row makes two rules fire.
        claims: Each claim as a sentence, and its verdict.
        overlaps: Pairs of rules that fire together.
        conflicts: Those of them with different outcomes.
        at_least: Whether there may be more pairs than counted.
        seconds: How long it took.
    """

    rules: RuleSet
    findings: list[Finding] = field(default_factory=list)
    complete: Verdict = field(default_factory=lambda: Verdict(State.UNKNOWN))
    consistent: Verdict = field(default_factory=lambda: Verdict(State.UNKNOWN))
    disjoint: Verdict = field(default_factory=lambda: Verdict(State.UNKNOWN))
    claims: list[tuple[str, Verdict]] = field(default_factory=list)
    overlaps: int = 0
    conflicts: int = 0
    at_least: bool = False
    seconds: float = 0.0

    def fails(self, *, strict: bool) -> bool:
        """Whether a run in continuous integration should fail."""
        bad = (Level.ERROR, Level.WARNING) if strict else (Level.ERROR,)
        return any(finding.level in bad for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "schema": SCHEMA,
            "name": self.rules.name,
            "rules": len(self.rules.rules),
            "columns": len(self.rules.columns),
            "policy": str(self.rules.policy),
            "complete": self._verdict(self.complete),
            "consistent": self._verdict(self.consistent),
            "disjoint": self._verdict(self.disjoint),
            "overlaps": self.overlaps,
            "conflicts": self.conflicts,
            "at_least": self.at_least,
            "claims": [{"claim": text, **self._verdict(verdict)} for text, verdict in self.claims],
            "findings": [
                {
                    "kind": str(finding.kind),
                    "level": str(finding.level),
                    "rules": list(finding.rules),
                    "text": finding.text,
                    "rows": self._rows(finding.rows),
                }
                for finding in self.findings
            ],
            "seconds": round(self.seconds, 3),
        }

    def _verdict(self, verdict: Verdict) -> dict[str, Any]:
        return {"state": str(verdict.state), "reason": verdict.reason, "rows": self._rows(verdict.rows)}

    def _rows(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [shown_row(self.rules, row) for row in rows]
