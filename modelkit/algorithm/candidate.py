"""One way of reaching the goal, and what came of trying it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelkit.decision import Decision
from modelkit.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


@dataclass(frozen=True)
class Candidate:
    """A transform that may be tried.

    Attributes:
        name: What a person reads in the table of what was tried.
        apply: Changes a model in place (it is handed a copy) and returns its decisions.
        sketch: The same without what takes long, for a plan; None where nothing does.
        only_compared: Whether it is only measured beside the others, and never chosen.
    """

    name: str
    apply: Callable[[ir.Model, Progress], list[Decision]]
    sketch: Callable[[ir.Model, Progress], list[Decision]] | None = None
    only_compared: bool = False


@dataclass
class Trial:
    """A candidate that was tried.

    Attributes:
        name: The candidate's name.
        status: "tried", then "chosen", or "rejected"; "failed" where it could not be made; "compared" where it is
            only measured beside the others.
        reason: Why it was rejected, failed or chosen.
        hint: What to do about it, where it failed; "" where nothing is known to help.
        missed: Which limit it was rejected for: "quality", "size" or "latency"; "" where it was not.
        path: The model on disk; None where it failed.
        decisions: What was done to each tensor or node.
        size: Bytes and parameters.
        fidelity: Agreement with the original on the selection data.
        quality: Metrics against labels on the selection data; None without labels.
        latency: Median and p95 in milliseconds, and the speed-up with its interval; None until timed.
        structure: Tells models apart by everything but their numbers; "" where it is not known.
        layers: Nodes with weights: name, operator, bytes and so on.
        history: What trainings went through, epoch by epoch.
        kept: Of each initializer that was cut, by axis, the positions that are left; empty where shapes are the same.
    """

    name: str
    status: str = "tried"
    reason: str = ""
    hint: str = ""
    missed: str = ""
    path: Path | None = None
    decisions: list[Decision] = field(default_factory=list)
    size: dict[str, Any] = field(default_factory=dict)
    fidelity: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    structure: str = ""
    layers: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, dict[int, Any]] = field(default_factory=dict)
