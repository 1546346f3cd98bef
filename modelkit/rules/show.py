"""Checks, reports and explanations of rule sets as tables for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import RenderableType

from modelkit.report import units
from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled
from modelkit.rules.build_report import BuildReport
from modelkit.rules.explain import Explanation
from modelkit.rules.findings import CheckReport
from modelkit.rules.fit import Fit
from modelkit.rules.search import State, Verdict
from modelkit.rules.table import row_text

_STYLES = {"error": "red", "warning": "yellow", "note": None}
_MOST_RULES = 40


def render_check(report: CheckReport) -> RenderableType:
    """What a check found."""
    parts: list[RenderableType] = [titled(_head(report), pairs(_summary(report)))]
    if report.findings:
        table = new_table("level", "what", "finding, and rows that show it", whole=("level", "what"))
        for finding in report.findings:
            rows = "".join(f" [{row_text(report.rules, row)}]" for row in finding.rows)
            add_row(table, finding.level, finding.kind, finding.text + rows, style=_STYLES[str(finding.level)])
        parts.append(titled("Findings", table))
    if report.claims:
        table = new_table("claim", "verdict", whole=("verdict",))
        for text, verdict in report.claims:
            add_row(table, text, verdict.state)
        parts.append(titled("Claims", table))
    return stack(parts)


def _head(report: CheckReport) -> str:
    rules = report.rules
    return f"{rules.name}: {_count(len(rules.rules), 'rule')}, {_count(len(rules.columns), 'column')}, {rules.policy}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _summary(report: CheckReport) -> list[tuple[str, str]]:
    more = " or more" if report.at_least else ""
    return [
        ("rules cover all input", _said(report.complete)),
        ("no two rules fire together", _said(report.disjoint)),
        ("no conflicts", _said(report.consistent)),
        ("pairs that fire together", f"{report.overlaps}{more}, with different outcomes {report.conflicts}{more}"),
        ("time", units.milliseconds(1000 * report.seconds)),
    ]


def _said(verdict: Verdict) -> str:
    if verdict.state is State.UNKNOWN:
        return f"unknown: {verdict.reason}" if verdict.reason else "unknown"
    return "proved" if verdict.state is State.PROVED else "no"


def render_build(report: BuildReport) -> RenderableType:
    """What was built."""
    size = int(report.file["bytes"])
    verified = report.verified
    rows: list[tuple[str, str]] = [
        ("file", f"{report.file['name']}, {units.size(size)}"),
        ("verified", f"{verified.boundary} boundary and {verified.random} random rows, no disagreement"),
        *_summary(report.checked)[:-1],
    ]
    parts: list[RenderableType] = [titled(_head(report.checked), pairs(rows))]
    if report.checked.claims:
        table = new_table("claim", "verdict", whole=("verdict",))
        for text, verdict in report.checked.claims:
            add_row(table, text, verdict.state)
        parts.append(titled("Claims", table))
    if report.fit is not None:
        parts.append(_fit(report.fit, numeric=report.rules.is_numeric))
    return stack(parts)


def _fit(fit: Fit, *, numeric: bool) -> RenderableType:
    last = ("RMSE",) if numeric else ("precision", "lift")
    table = new_table("rule", "fires", "decides", *last, numbers=("fires", "decides", *last))
    for rule in fit.rules[:_MOST_RULES]:
        figures = (
            [units.metric("rmse", rule.error)]
            if numeric
            else [units.percent(rule.precision), units.factor(rule.lift)]
        )
        add_row(table, rule.rule, units.percent(rule.coverage), units.percent(rule.decides), *figures)
    quality = ", ".join(f"{name} {units.metric(name, value)}" for name, value in fit.quality.items())
    parts: list[RenderableType] = [titled(f"On {fit.rows} rows{': ' if quality else ''}{quality}", table)]
    if len(fit.rules) > _MOST_RULES:
        parts.append(notes([f"{len(fit.rules) - _MOST_RULES} more rules are in the JSON report"]))
    return stack(parts)


def render_explanation(explanations: list[Explanation]) -> RenderableType:
    """Why rows got their results."""
    parts: list[RenderableType] = []
    for each in explanations:
        rows: list[tuple[object, object]] = [("result", each.result), ("because", each.because)]
        rows += [("", f"{'✓' if holds else '✗'} {text}") for text, holds in each.literals]
        if each.adds:
            rows.append(("adds up", ", ".join(f"{name} {value:+g}" for name, value in each.adds.items())))
        elif each.fired:
            rows.append(("all that fire", ", ".join(each.fired)))
        if each.scores:
            rows.append(("scores", ", ".join(f"{label} {score:g}" for label, score in each.scores.items())))
        parts.append(titled(f"row {each.row}: {each.values}", pairs(rows, indent=2)))
    return stack(parts)
