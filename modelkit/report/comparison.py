"""Several models side by side, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from modelkit.report import rows, units
from modelkit.report.text import add_row, new_table, notes, stack, titled

SCHEMA = "modelkit.comparison/1"

# How many models fit beside the reference in 80 columns.
_BESIDE = 2


def render(found: dict[str, Any]) -> RenderableType:
    """Lay the result of ``modelkit.api.evaluate`` out for rich: a column for each model, the reference first."""
    reference, *others = found["models"]
    parts: list[RenderableType] = []
    for start in range(0, max(len(others), 1), _BESIDE):
        parts.append(_table(reference, others[start : start + _BESIDE]))
    if found["notes"]:
        parts.append(notes(found["notes"]))
    return stack(parts)


def _table(reference: dict[str, Any], others: list[dict[str, Any]]) -> RenderableType:
    models = [reference, *others]
    names = [model["name"] for model in models] if others else ["figure"]
    table = new_table("", *names, numbers=names)
    for column in table.columns[1:]:
        column.no_wrap = False
    add_row(table, "file size", *[units.size(m["size"]["file_bytes"]) for m in models])
    add_row(table, "deflated", *[units.size(m["size"]["deflated_bytes"]) for m in models])
    add_row(table, "parameters", *[units.number(m["size"]["parameters"]) for m in models])
    add_row(table, "non-zero parameters", *[units.number(m["size"]["nonzero_parameters"]) for m in models])
    for name in reference["quality"] or {}:
        add_row(table, rows.label(name), *[units.metric(name, (m["quality"] or {}).get(name)) for m in models])
    if others:
        found = [dict(rows.fidelity(m["fidelity"])) for m in others]
        for name in dict.fromkeys(name for each in found for name in each):
            add_row(table, name, "", *[each.get(name, "-") for each in found])
    add_row(table, "latency, median", *[units.milliseconds(m["latency"]["median_ms"]) for m in models])
    add_row(table, "latency, p95", *[units.milliseconds(m["latency"]["p95_ms"]) for m in models])
    if others:
        add_row(table, "speed", "", *[_speed(m["speedup"]) for m in others])
        add_row(table, "95 % interval", "", *[_interval(m["speedup"]) for m in others])
    return titled("Comparison" if others else reference["name"], table)


def _speed(ratio: dict[str, float]) -> str:
    """The speed-up; only an interval that excludes 1 is called a difference."""
    if ratio["low"] <= 1 <= ratio["high"]:
        return "the same"
    return f"{units.factor(ratio['value'])} faster" if ratio["low"] > 1 else f"{units.factor(ratio['value'])} as fast"


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['low']:.2f} to {ratio['high']:.2f}"
