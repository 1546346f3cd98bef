"""The report of one transform: what went in, what came out, what was tried, and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from modelkit.decision import Decision

SCHEMA = "modelkit.report/1"


@dataclass(frozen=True)
class Gate:
    """Something the user insisted on.

    Attributes:
        name: What was measured, in words.
        asked: The limit, as the user would write it.
        got: What was measured, in the same words.
        ok: Whether it was met.
        option: The option that set it, such as "max_drop".
        by: By how much it is missed, such as "500 µs too slow"; empty where it is met or could not be measured.
    """

    name: str
    asked: str
    got: str
    ok: bool
    option: str = ""
    by: str = ""

    @property
    def verdict(self) -> str:
        """Whether it was met, in words; by how much it was not."""
        return "met" if self.ok else f"missed: {self.by}" if self.by else "missed"


@dataclass
class Side:
    """One of the two models that are compared.

    Attributes:
        file: Name, bytes and sha256 of the main file.
        size: Bytes, parameters, non-zero parameters, deflated bytes.
        latency: median_ms, p95_ms, runs.
        quality: Metrics against labels; None where there are none.
    """

    file: dict[str, Any]
    size: dict[str, Any]
    latency: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None


@dataclass
class Report:
    """Everything that a run found out; every face (table, JSON, Markdown) is made from it.

    Attributes:
        command: Name of the command.
        status: "done" or "budget not met".
        before: The original.
        after: The artifact (or, where a budget was not met, the best that was found).
        method: Name of the chosen candidate.
        speedup: Original's median latency over the artifact's, with its 95 % interval: value, low, high.
        fidelity: Agreement of the artifact with the original.
        gates: What was insisted on.
        candidates: Everything that was tried.
        beside: Models that the artifact is compared with, on the same samples: ``name``, ``size``, ``latency``,
            ``quality`` and ``fidelity`` of each. Only distilling has any.
        selection_quality: The original's metrics on the samples that candidates were compared on.
        decisions: What was done to each tensor and node.
        layers: Each node with weights before and after (see ``modelkit.report.layers.paired``).
        history: Trainings, epoch by epoch.
        normalisation: What was cleaned up before the algorithm ran.
        audit: How many layers onnxruntime runs in integers, and what it does not, with reasons.
        data: What was calibrated, selected and tested on.
        notes: Things that a reader of the numbers must know.
        config: The resolved options.
        origins: Where each option's value came from.
        seed: Seed of everything random.
        machine: Processor, features and versions.
        steps: Of a recipe, what each step did, took and gave (see ``modelkit.recipe.steps``); empty for others.
    """

    command: str
    status: str
    before: Side
    after: Side
    method: str
    speedup: dict[str, float] | None
    fidelity: dict[str, Any] | None
    gates: list[Gate] = field(default_factory=list)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    beside: list[dict[str, Any]] = field(default_factory=list)
    selection_quality: dict[str, Any] | None = None
    decisions: list[Decision] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    normalisation: list[Decision] = field(default_factory=list)
    audit: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    machine: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def size_ratio(self) -> float:
        """Artifact bytes over original bytes; below 1 is smaller."""
        return float(self.after.size["file_bytes"]) / max(float(self.before.size["file_bytes"]), 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, schema first; numbers that are not finite become None."""
        plain = {"schema": SCHEMA, **asdict(self), "size_ratio": round(self.size_ratio, 4)}
        for key in ("beside", "steps"):
            # What only some commands have stands at the end.
            if found := plain.pop(key):
                plain[key] = found
        result = finite(plain)
        assert isinstance(result, dict)
        return result


def finite(value: Any) -> Any:
    """Plain values for JSON: numbers that are not finite become None, numpy's become Python's."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
