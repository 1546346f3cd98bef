"""Several models side by side, as tables for a terminal and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from modelkit.report import rows, units
from modelkit.report.markdown import code, escape
from modelkit.report.markdown import table as as_markdown
from modelkit.report.report import Gate
from modelkit.report.table import gates
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
    parts += [gates(f"Gates: {name}" if len(others) > 1 else "Gates", held) for name, held in gates_of(found)]
    if found["notes"]:
        parts.append(notes(found["notes"]))
    return stack(parts)


def gates_of(found: dict[str, Any]) -> list[tuple[str, list[Gate]]]:
    """The gates of each model that has any, by the model's name."""
    return [(each["name"], [Gate(**gate) for gate in each["gates"]]) for each in found["models"] if each["gates"]]


def markdown(found: dict[str, Any]) -> str:
    """Return the figures of a comparison as Markdown."""
    reference, *others = found["models"]
    names = [model["name"] for model in found["models"]] if others else ["figure"]
    lines = [f"# {escape('Comparison' if others else reference['name'])}", ""]
    lines += as_markdown(["", *names], _rows(reference, others))
    for name, held in gates_of(found):
        body = [(gate.name, gate.asked, gate.got, gate.verdict) for gate in held]
        lines += ["", f"## Gates: {code(name)}", "", *as_markdown(["what", "asked", "got", ""], body)]
    lines += ["", *[f"- note: {escape(note)}" for note in found["notes"]]] if found["notes"] else []
    return "\n".join(lines) + "\n"


def _table(reference: dict[str, Any], others: list[dict[str, Any]]) -> RenderableType:
    names = [model["name"] for model in (reference, *others)] if others else ["figure"]
    table = new_table("", *names, numbers=names)
    for column in table.columns[1:]:
        column.no_wrap = False
    for row in _rows(reference, others):
        add_row(table, *row)
    return titled("Comparison" if others else reference["name"], table)


def _rows(reference: dict[str, Any], others: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each figure: its name, then that of each model."""
    models = [reference, *others]
    table = [
        ("file size", *[units.size(m["size"]["file_bytes"]) for m in models]),
        ("deflated", *[units.size(m["size"]["deflated_bytes"]) for m in models]),
        ("parameters", *[units.number(m["size"]["parameters"]) for m in models]),
        ("non-zero parameters", *[units.number(m["size"]["nonzero_parameters"]) for m in models]),
    ]
    for name in reference["quality"] or {}:
        table.append((rows.label(name), *[units.metric(name, (m["quality"] or {}).get(name)) for m in models]))
    if others:
        found = [dict(rows.fidelity(m["fidelity"])) for m in others]
        for name in dict.fromkeys(name for each in found for name in each):
            table.append((name, "", *[each.get(name, "-") for each in found]))
    table.append(("latency, median", *[units.milliseconds(m["latency"]["median_ms"]) for m in models]))
    table.append(("latency, p95", *[units.milliseconds(m["latency"]["p95_ms"]) for m in models]))
    if others:
        table.append(("speed", "", *[_speed(m["speedup"]) for m in others]))
        table.append(("95 % interval", "", *[_interval(m["speedup"]) for m in others]))
    return table


def _speed(ratio: dict[str, float]) -> str:
    """The speed-up; only an interval that excludes 1 is called a difference."""
    if ratio["low"] <= 1 <= ratio["high"]:
        return "the same"
    return f"{units.factor(ratio['value'])} faster" if ratio["low"] > 1 else f"{units.factor(ratio['value'])} as fast"


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['low']:.2f} to {ratio['high']:.2f}"
