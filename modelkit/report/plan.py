"""What a run would do, before it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from modelkit.decision import Decision

SCHEMA = "modelkit.plan/1"


@dataclass
class Plan:
    """A dry run.

    Attributes:
        model: Name of the model file.
        output: Where the artifact would go.
        original_bytes: Size of the original.
        candidates: For each: name, predicted bytes (None where it cannot be made) and the reason.
        decisions: What the smallest candidate would do to each tensor and node.
        data: What would be calibrated, selected and tested on.
        config: The resolved options.
        origins: Where each option's value came from.
        steps: Of a recipe, the plan of each step; empty for others.
    """

    model: str
    output: str
    original_bytes: int
    candidates: list[dict[str, Any]]
    decisions: list[Decision]
    data: dict[str, Any]
    config: dict[str, Any]
    origins: dict[str, str]
    steps: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, schema first."""
        plain = {"schema": SCHEMA, **asdict(self)}
        if steps := plain.pop("steps"):
            plain["steps"] = steps
        return plain
