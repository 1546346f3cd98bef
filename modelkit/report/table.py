"""The report as tables for a terminal; they fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelkit.decision import Decision
from modelkit.report import rows, units
from modelkit.report.plan import Plan
from modelkit.report.report import Report


def render(report: Report, *, explain: bool = False) -> RenderableType:
    """Lay the report out for rich.

    Args:
        report: The report.
        explain: Whether to list every decision.
    """
    parts: list[RenderableType] = [_main(report)]
    if len(report.candidates) > 1 or report.status != "done":
        parts += [Text(""), _tried(report)]
        parts += _reasons(report)
    if report.gates:
        parts += [Text(""), _gates(report)]
    if report.audit:
        parts += [Text(""), *_audit(report, explain)]
    if explain:
        parts += [Text(""), decisions("What was done, and why", [*report.normalisation, *report.decisions])]
    for note in report.notes:
        parts.append(Text(f"note: {note}", style="yellow"))
    return Group(*parts)


def _main(report: Report) -> Table:
    table = new_table(f"{report.before.file['name']}: {report.method}")
    table.add_column("")
    table.add_column("original", justify="right")
    table.add_column("artifact", justify="right")
    table.add_column("change")
    for row in rows.before_after(report):
        table.add_row(*row)
    return table


def _tried(report: Report) -> Table:
    table = new_table("What was tried")
    for name, justify in (
        ("method", "left"),
        ("size", "right"),
        ("speed", "right"),
        ("agreement", "right"),
        ("quality", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows.tried(report):
        style = "green" if row[-1] == "chosen" else "red" if row[-1] in ("rejected", "failed") else None
        table.add_row(*row, style=style)
    return table


def _reasons(report: Report) -> Iterable[RenderableType]:
    for entry in report.candidates:
        if entry["status"] in ("rejected", "failed", "chosen") and entry["reason"]:
            yield Text(f"  {entry['name']}: {entry['reason']}", style="dim")


def _gates(report: Report) -> Table:
    table = new_table("Budget")
    for name in ("what", "asked", "got", ""):
        table.add_column(name)
    for gate in report.gates:
        table.add_row(
            gate.name, gate.asked, gate.got, "met" if gate.ok else "missed", style=None if gate.ok else "red"
        )
    return table


def _audit(report: Report, explain: bool) -> Iterable[RenderableType]:
    audit = report.audit or {}
    yield Text(
        f"Kernels: {audit['integer']} integer, {audit['float']} float, "
        f"{audit['conversions']} conversions between them"
    )
    if explain:
        for entry in audit["unfused"]:
            yield Text(f"  {entry['node']} ({entry['op']}): {entry['reason']}", style="dim")


def render_plan(plan: Plan, *, explain: bool) -> RenderableType:
    """Lay out what a run would do.

    Args:
        plan: The plan.
        explain: Whether to list the decisions of the first candidate.
    """
    table = new_table(f"{plan.model}: what would be tried (nothing is written)")
    for name, justify in (
        ("method", "left"),
        ("predicted size", "right"),
        ("smaller by", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for entry in plan.candidates:
        predicted = entry["bytes"]
        ratio = plan.original_bytes / predicted if predicted else None
        table.add_row(str(entry["name"]), units.size(predicted), units.factor(ratio), str(entry["reason"]))
    parts: list[RenderableType] = [table, Text(f"artifact: {plan.output}")]
    if explain:
        parts += [Text(""), decisions("What would be done, and why", plan.decisions)]
    return Group(*parts)


def decisions(title: str, found: Iterable[Decision]) -> Table:
    """A table of decisions: target, action, reason."""
    table = new_table(title)
    table.add_column("target", overflow="fold", ratio=3)
    table.add_column("action", ratio=2)
    table.add_column("reason", ratio=5)
    for decision in found:
        figures = ", ".join(
            f"{key.replace('_', ' ')} {value}" for key, value in decision.numbers.items() if value is not None
        )
        table.add_row(decision.target, decision.action, decision.reason + (f" ({figures})" if figures else ""))
    return table


def new_table(title: str) -> Table:
    """An empty table in the style of all of them."""
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
