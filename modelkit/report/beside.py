"""Whether distillation helped: the teacher, the same student without it, and the distilled one side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from modelkit.report import units
from modelkit.report.report import Report
from modelkit.report.rows import LOWER, change, fidelity, label

TITLE = "Did distillation help?"

# Metrics that are shares of samples, so that chance can be told from their number.
_SHARES = ("accuracy", "top1_agreement")
_SURE = 1.96  # 95 %, two-sided


def table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: what it is, quality where there are labels, agreement with the teacher, size and latency."""
    metric = next(iter(report.after.quality or {}), "")
    agreement = next((name for name, _ in fidelity(report.fidelity)), "agreement")
    head = ["", *([label(metric)] if metric else []), agreement, "size", "latency"]
    before, after = report.before, report.after
    sides: list[tuple[str, Mapping[str, Any]]] = [
        ("teacher", {"quality": before.quality, "size": before.size, "latency": before.latency}),
        *((entry["name"], entry) for entry in report.beside),
        (
            "distilled",
            {
                "quality": after.quality,
                "fidelity": report.fidelity,
                "size": after.size,
                "latency": after.latency,
            },
        ),
    ]
    return head, [_row(name, side, metric) for name, side in sides]


def verdict(report: Report) -> str:
    """The answer in one line, told from the samples of the final figures."""
    if not report.beside:
        return ""
    other = report.beside[0]
    metric = next(iter(report.after.quality or {}), "")
    new, old = (report.after.quality or {}).get(metric), (other["quality"] or {}).get(metric)
    if new is None or old is None:
        metric = "top1_agreement" if (report.fidelity or {}).get("top1_agreement") is not None else "sqnr_db"
        new, old = (report.fidelity or {}).get(metric), (other["fidelity"] or {}).get(metric)
    if new is None or old is None:
        return "not measurable on these outputs"
    gain = old - new if metric in LOWER else new - old
    named = {"top1_agreement": "agreement with the teacher", "sqnr_db": "output SQNR in dB"}.get(
        metric, label(metric)
    )
    said = f"{change(metric, old, new)} {named} against the {other['name']}"
    count = _count(report)
    if metric in _SHARES and count:
        chance = _SURE * math.sqrt((old * (1 - old) + new * (1 - new)) / count)
        if abs(gain) <= chance:
            return f"no difference that {count} samples can show: {said} (chance: {100 * chance:.2f} points)"
    return f"{'yes' if gain > 0 else 'no'}: {said}"


def _row(name: str, side: Mapping[str, Any], metric: str) -> list[str]:
    agreement = next((text for _, text in fidelity(side.get("fidelity"))), "")
    latency = side.get("latency") or {}
    return [
        name,
        *([units.metric(metric, (side.get("quality") or {}).get(metric))] if metric else []),
        agreement,
        units.size(side["size"]["file_bytes"]),
        units.milliseconds(latency.get("median_ms")),
    ]


def _count(report: Report) -> int:
    """Samples behind the final figures."""
    facts = report.data.get("test") or report.data.get("selection") or {}
    return int(facts.get("count") or 0)
