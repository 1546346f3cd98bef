"""A decision: what was done to one tensor or node, or why it was left alone."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Decision:
    """What an algorithm did to one thing, and why.

    Attributes:
        target: Name of the tensor or node.
        action: One or two words in the past tense or a mode, such as "quantized", "folded", "kept".
        reason: Why, for a reader who knows models but not this code.
        numbers: Figures that belong to it (bits, bytes before and after, SQNR in dB, ...).
    """

    target: str
    action: str
    reason: str
    numbers: dict[str, float | int | str] = field(default_factory=dict)
