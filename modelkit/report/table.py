"""The report as tables for a terminal; they fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType

from modelkit.decision import Decision
from modelkit.report import beside, rows, steps, units
from modelkit.report.plan import Plan
from modelkit.report.report import Gate, Report
from modelkit.report.text import add_row, cell, new_table, notes, pairs, stack, titled

_STYLES = {"chosen": "green", "rejected": "dim", "failed": "red"}


def render(report: Report, *, explain: bool = False) -> RenderableType:
    """Lay the report out for rich.

    Args:
        report: The report.
        explain: Whether to list every decision.
    """
    parts: list[RenderableType] = [_main(report)]
    if report.beside:
        parts.append(_beside(report))
    if report.steps:
        parts.append(_steps(report))
    elif len(report.candidates) - len(report.beside) > 1 or report.status != "done":
        parts.append(_tried(report))
    if report.gates:
        parts.append(gates("Budget", report.gates))
    if report.audit:
        parts.append(_audit(report.audit, explain))
    if explain:
        parts.append(decisions("What was done, and why", [*report.normalisation, *report.decisions]))
    if report.notes:
        parts.append(notes(report.notes))
    return stack(parts)


def _main(report: Report) -> RenderableType:
    table = new_table("", "original", "artifact", "change", numbers=("original", "artifact"))
    for row in rows.before_after(report):
        add_row(table, *row)
    return titled(f"{report.before.file['name']}: {report.method}", table)


def _beside(report: Report) -> RenderableType:
    head, body = beside.table(report)
    table = new_table(*head, numbers=head[1:])
    for row in body:
        add_row(table, *row)
    return Group(titled(beside.TITLE, table), cell(beside.verdict(report)))


def _tried(report: Report) -> RenderableType:
    head, body = rows.tried(report)
    table = new_table(*head, numbers=head[1:-1], whole=head[-1:])
    for row in body:
        add_row(table, *row, style=_STYLES.get(row[-1]))
    reasons = [(entry["name"], entry["reason"]) for entry in report.candidates if entry["reason"]]
    shown = [pairs(reasons, indent=2, style="dim")] if reasons else []
    return Group(titled(rows.tried_title(report), table), *shown)


def _steps(report: Report) -> RenderableType:
    head, body = steps.table(report)
    table = new_table(*head, numbers=head[2:-1], whole=head[:1])
    for row in body:
        add_row(table, *row)
    reasons = [(name, reason) for name, reason in steps.reasons(report.steps)]
    return Group(titled(steps.TITLE, table), *([pairs(reasons, indent=2, style="dim")] if reasons else []))


def gates(title: str, found: Iterable[Gate]) -> RenderableType:
    """A table of gates: what was asked, what was measured, by how much it is missed."""
    table = new_table("what", "asked", "got", "", numbers=("asked",))
    for gate in found:
        add_row(table, gate.name, gate.asked, gate.got, gate.verdict, style=None if gate.ok else "red")
    return titled(title, table)


def _audit(audit: dict[str, Any], explain: bool) -> RenderableType:
    summary = cell(f"Kernels: {rows.kernels(audit)}")
    if not explain or not audit["unfused"]:
        return summary
    table = new_table("layer", "operator", "why it runs in float")
    for entry in audit["unfused"]:
        add_row(table, entry["node"], entry["op"], entry["reason"])
    return stack([summary, titled("Layers in float", table)])


def render_plan(plan: Plan, *, explain: bool) -> RenderableType:
    """Lay out what a run would do.

    Args:
        plan: The plan.
        explain: Whether to list the decisions of the smallest candidate.
    """
    title = f"{plan.model}: what would be tried (nothing is written)"
    parts: list[RenderableType] = []
    for step in plan.steps:
        said = "cached" if step["cached"] else step["reason"]
        name = f"Step {step['number']}: {step['command']}{f', {said}' if said else ''}"
        parts += _candidates(name, step["candidates"], plan.original_bytes)
    if plan.steps:
        parts.insert(0, cell(title, style="bold"))
    else:
        parts += _candidates(title, plan.candidates, plan.original_bytes)
    parts.append(pairs([("original", units.size(plan.original_bytes)), ("artifact", plan.output)]))
    if explain:
        parts.append(decisions("What would be done, and why", plan.decisions))
    return stack(parts)


def _candidates(title: str, entries: list[dict[str, Any]], original_bytes: int) -> list[RenderableType]:
    """A table of what would be tried, and what would not be possible."""
    possible = [entry for entry in entries if entry["bytes"] is not None]
    table = new_table("method", "predicted size", "smaller by", numbers=("predicted size", "smaller by"))
    for entry in possible:
        ratio = units.factor(original_bytes / max(entry["bytes"], 1))
        add_row(table, entry["name"], units.size(entry["bytes"]), ratio)
    refused = [(entry["name"], f"not possible: {entry['reason']}") for entry in entries if entry["reason"]]
    parts = [titled(title, table) if possible else cell(title, style="bold")]
    return [*parts, *([pairs(refused)] if refused else [])]


def decisions(title: str, found: Iterable[Decision]) -> RenderableType:
    """A table of decisions: target, action, reason."""
    table = new_table("target", "action", "reason", whole=("action",))
    for decision in found:
        figures = units.figures(decision.numbers)
        add_row(table, decision.target, decision.action, decision.reason + (f" ({figures})" if figures else ""))
    return titled(title, table)
