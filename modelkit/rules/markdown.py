"""The report of a built rule set as a Markdown page."""

from __future__ import annotations

from modelkit.report import units
from modelkit.report.markdown import code, escape, table
from modelkit.rules.build_report import BuildReport
from modelkit.rules.document import to_yaml
from modelkit.rules.table import row_text
from modelkit.rules.text import condition_text

_MOST = 200


def report_markdown(report: BuildReport) -> str:
    """Return the page; names from the rules are shown as they are, never as markup."""
    rules, checked = report.rules, report.checked
    lines = [f"# {code(rules.name)}: {len(rules.rules)} rules, policy {rules.policy}", ""]
    if rules.description:
        lines += [escape(rules.description), ""]
    verified = report.verified
    facts = [
        ("file", f"{report.file['name']}, {units.size(int(report.file['bytes']))}"),
        ("verified", f"{verified.boundary} boundary and {verified.random} random rows, no disagreement"),
        ("rules cover all input", checked.complete.state),
        ("no two rules fire together", checked.disjoint.state),
        ("no conflicts", checked.consistent.state),
        ("pairs that fire together", f"{checked.overlaps}, with different outcomes {checked.conflicts}"),
    ]
    lines += table(["", ""], facts)
    if checked.claims:
        body = [
            (text, verdict.state, "; ".join(row_text(rules, row) for row in verdict.rows))
            for text, verdict in checked.claims
        ]
        lines += ["", "## Claims", "", *table(["claim", "verdict", "counter-example"], body)]
    if checked.findings:
        found = [
            (f.level, f.kind, f.text, "; ".join(row_text(rules, row) for row in f.rows)) for f in checked.findings
        ]
        lines += ["", "## Findings", "", *table(["level", "what", "finding", "rows"], found)]
    lines += ["", "## Rules", "", *_rules(report)]
    if len(rules.rules) <= _MOST:
        lines += ["", "## Source", "", "```yaml", to_yaml(rules).replace("```", "` ` `").rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _rules(report: BuildReport) -> list[str]:
    rules, fit = report.rules, report.fit
    head = ["rule", "when", "then"]
    if fit is not None:
        head += ["fires", "decides", *(["RMSE"] if rules.is_numeric else ["precision", "lift"])]
    body: list[list[object]] = []
    for i, rule in enumerate(rules.rules[:_MOST]):
        row: list[object] = [
            rule.name,
            condition_text(rule.when, rules.column),
            getattr(rule.then, "value", rule.then),
        ]
        if fit is not None:
            one = fit.rules[i]
            row += [units.percent(one.coverage), units.percent(one.decides)]
            quality = (
                [units.metric("rmse", one.error)]
                if rules.is_numeric
                else [units.percent(one.precision), units.factor(one.lift)]
            )
            row += quality
        body.append(row)
    lines = table(head, body, names=1)
    if len(rules.rules) > _MOST:
        lines += ["", f"{len(rules.rules) - _MOST} more are in the JSON report."]
    return lines
