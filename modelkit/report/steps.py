"""What the steps of a recipe gave and took: rows that the table and the Markdown page share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelkit.report import rows, units
from modelkit.report.report import Report

TITLE = "After each step, against the original"


def name_of(step: dict[str, Any]) -> str:
    """What to call a step."""
    return f"{step['number']} {step['command']}"


def table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Headers and a row for the original and for each step; speed and agreement are against the original."""
    metric = next(iter(report.before.quality or {}), "")
    measured = [step for step in report.steps if step["fidelity"]]
    agree = next((name for step in measured for name, _ in rows.fidelity(step["fidelity"])), "output SQNR")
    head = ["step", "method", "size", "speed", *([rows.label(metric)] if metric else []), agree, "took"]
    quality = report.before.quality or {}
    first = ["original", "", units.size(report.before.size["file_bytes"]), ""]
    body = [[*first, *([units.metric(metric, quality.get(metric))] if metric else []), "", ""]]
    return head, body + [_row(step, metric) for step in report.steps]


def _row(step: dict[str, Any], metric: str) -> list[str]:
    speed, fidelity = step["speedup"], rows.fidelity(step["fidelity"])
    took = "cached" if step["cached"] else units.milliseconds(1000 * step["seconds"])
    return [
        name_of(step),
        step["method"] if step["size"] else step["status"],
        units.size((step["size"] or {}).get("file_bytes")),
        units.factor(speed["value"]) if speed else "-",
        *([units.metric(metric, (step["quality"] or {}).get(metric))] if metric else []),
        fidelity[0][1] if fidelity else "-",
        took,
    ]


def reasons(steps: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Why steps gave nothing."""
    return [(name_of(step), step["reason"]) for step in steps if step["reason"]]


def hashes(steps: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The hash of what each step made."""
    return [(f"step {name_of(step)}", step["artifact"]["sha256"]) for step in steps if step["artifact"]]
