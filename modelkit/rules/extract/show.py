"""Extracted rules as tables for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import RenderableType

from modelkit.report.text import notes, pairs, stack, titled
from modelkit.rules.extract.extract import ExtractReport
from modelkit.rules.learn.compose import size
from modelkit.rules.learn.show import rule_table


def render(report: ExtractReport) -> RenderableType:
    """What was extracted."""
    found = report.extracted
    rules, comparisons = size(found.learned.rules)
    metric = "R² against the model" if found.learned.rules.is_numeric else "agreement with the model"
    rows = [
        ("files", ", ".join(report.files)),
        ("learner", found.learned.chosen.method),
        ("size", f"{rules} rules, {comparisons} comparisons"),
        (metric, f"{found.held_out:.3f} on {found.fit.rows} held-out rows, {found.made_up:.3f} on made-up rows"),
        ("asked", f"{found.queries} made-up rows near the data"),
    ]
    if found.splits:
        rows.append(("thresholds", f"the model's own, of {len(found.splits)} columns"))
    if report.accuracy is not None:
        name = "R²" if found.learned.rules.is_numeric else "accuracy"
        both = f"rules {report.accuracy['rules']:.3f}, model {report.accuracy['teacher']:.3f}"
        rows.append((f"{name} on held-out rows", both))
    parts: list[RenderableType] = [
        titled(f"{report.teacher['name']}: rules that imitate it", pairs(rows)),
        titled("Rules", rule_table(found.learned.rules)),
    ]
    if report.notes:
        parts.append(notes(list(report.notes)))
    return stack(parts)
