"""Several models side by side, as a table for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from modelkit.report import rows, units
from modelkit.report.table import new_table

SCHEMA = "modelkit.comparison/1"


def render(found: dict[str, Any]) -> RenderableType:
    """Lay the result of ``modelkit.api.evaluate`` out for rich: one column for each model."""
    models = found["models"]
    table = new_table("Comparison" if len(models) > 1 else models[0]["file"]["name"])
    table.add_column("")
    for model in models:
        table.add_column(model["file"]["name"], justify="right", overflow="fold")
    table.add_row("file size", *[units.size(m["size"]["file_bytes"]) for m in models])
    table.add_row("deflated", *[units.size(m["size"]["deflated_bytes"]) for m in models])
    table.add_row("parameters", *[units.number(m["size"]["parameters"]) for m in models])
    table.add_row("non-zero parameters", *[units.number(m["size"]["nonzero_parameters"]) for m in models])
    for name in models[0]["quality"] or {}:
        table.add_row(rows.label(name), *[units.metric(name, (m["quality"] or {}).get(name)) for m in models])
    if len(models) > 1:
        for index, (name, _) in enumerate(rows.fidelity(models[1]["fidelity"])):
            table.add_row(name, "", *[rows.fidelity(m["fidelity"])[index][1] for m in models[1:]])
    table.add_row("latency, median", *[units.milliseconds(m["latency"]["median_ms"]) for m in models])
    table.add_row("latency, p95", *[units.milliseconds(m["latency"]["p95_ms"]) for m in models])
    if len(models) > 1:
        table.add_row("speed", "", *[_ratio(m["speedup"]) for m in models[1:]])
    notes = [Text(f"note: {note}", style="yellow") for note in found["notes"]]
    return Group(table, *notes)


def _ratio(ratio: dict[str, Any]) -> str:
    sure = "" if ratio["low"] > 1 or ratio["high"] < 1 else ", no difference"
    return f"{units.factor(ratio['value'])} [{ratio['low']:.2f}, {ratio['high']:.2f}]{sure}"
