"""Check a rule set: contradictions, shadowed rules, overlaps, conflicts, gaps and claims; proved, or said unknown."""

from __future__ import annotations

import time

from modelkit.progress import Progress, silent
from modelkit.rules.analysis import Analysis
from modelkit.rules.budget import Budget
from modelkit.rules.claims import claim_text, prove
from modelkit.rules.findings import CheckReport, Finding, Kind, Level
from modelkit.rules.model import Policy, RuleSet
from modelkit.rules.overlaps import find_overlaps
from modelkit.rules.reach import Shadow, find_gap, find_shadowed
from modelkit.rules.search import State, Verdict
from modelkit.rules.table import row_text

_ORDER = {Level.ERROR: 0, Level.WARNING: 1, Level.NOTE: 2}


def check(
    rules: RuleSet,
    *,
    seconds: float = 60.0,
    limit: int = 10,
    dead: Level = Level.ERROR,
    progress: Progress = silent,
) -> CheckReport:
    """Check a rule set over all input that its columns declare.

    Args:
        rules: The rule set.
        seconds: How long it may take; what is not done by then is unknown.
        limit: Overlaps and conflicts to show of each kind; all are counted.
        dead: How bad a rule is that can never fire.
        progress: Told how far it is.

    Returns:
        What was found. Every row in it was evaluated and shows what it is said to show.
    """
    started = time.monotonic()
    budget = Budget(seconds)
    report = CheckReport(rules)
    progress("taking conditions apart", 0, 5)
    analysis = Analysis(rules, budget)
    _dead(report, analysis, dead)
    progress("pairs of rules", 1, 5)
    _overlaps(report, analysis, budget.part(0.4), limit)
    progress("gaps", 2, 5)
    _gaps(report, analysis, budget.part(0.4))
    progress("shadowed rules", 3, 5)
    if rules.policy in (Policy.FIRST, Policy.PRIORITY):
        _shadowed(report, analysis, budget.part(0.5))
    progress("claims", 4, 5)
    _claims(report, analysis, budget)
    report.findings.sort(key=lambda finding: _ORDER[finding.level])
    report.seconds = time.monotonic() - started
    return report


def _dead(report: CheckReport, analysis: Analysis, level: Level) -> None:
    rules = report.rules.rules
    for index in sorted(analysis.dead):
        text = f"'{rules[index].name}' can never fire: its condition contradicts itself or what its columns declare"
        report.findings.append(Finding(Kind.DEAD, level, (rules[index].name,), text))
    for index in sorted(analysis.complex):
        text = f"'{rules[index].name}' is too complex to be taken apart"
        report.findings.append(Finding(Kind.UNKNOWN, Level.WARNING, (rules[index].name,), text))
    for index in analysis.unsure:
        text = f"it is not known whether '{rules[index].name}' can fire"
        report.findings.append(Finding(Kind.UNKNOWN, Level.WARNING, (rules[index].name,), text))


def _overlaps(report: CheckReport, analysis: Analysis, budget: Budget, limit: int) -> None:
    found = find_overlaps(analysis, budget, limit)
    report.overlaps, report.conflicts, report.at_least = found.count, found.conflicts, found.at_least
    report.disjoint, report.consistent = found.disjoint, found.consistent
    rules = report.rules.rules
    if report.rules.policy in (Policy.VOTE, Policy.SCORE, Policy.COLLECT):
        return  # there rules are meant to fire together
    for left, right, row in found.shown:
        conflict = rules[left].then != rules[right].then
        names = (rules[left].name, rules[right].name)
        verb = "fire together with different outcomes" if conflict else "fire together"
        text = f"'{names[0]}' and '{names[1]}' {verb}"
        kind = Kind.CONFLICT if conflict else Kind.OVERLAP
        level = _level(report.rules, conflict, rules[left].priority == rules[right].priority)
        report.findings.append(Finding(kind, level, names, text, (row,)))
    _unknown(report, found.disjoint, "whether rules overlap", must=report.rules.policy is Policy.UNIQUE)


def _level(rules: RuleSet, conflict: bool, same_priority: bool) -> Level:
    if rules.policy is Policy.UNIQUE:
        return Level.ERROR
    if rules.policy is Policy.PRIORITY and conflict and same_priority:
        return Level.WARNING
    return Level.NOTE


def _shadowed(report: CheckReport, analysis: Analysis, budget: Budget) -> None:
    found, verdict = find_shadowed(analysis, budget, report.complete.state)
    for shadow in found:
        report.findings.append(_shadow_finding(report.rules, shadow))
    _unknown(report, verdict, "whether other rules are shadowed", must=True)


def _shadow_finding(rules: RuleSet, shadow: Shadow) -> Finding:
    names = [rules.rules[index].name for index in (shadow.rule, *shadow.by)]
    by = ", ".join(f"'{name}'" for name in names[1:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    text = f"'{names[0]}' never decides: {by} {'covers' if len(names) == 2 else 'cover'} all of it"
    return Finding(Kind.SHADOWED, Level.ERROR, tuple(names), text, (shadow.row,))


def _gaps(report: CheckReport, analysis: Analysis, budget: Budget) -> None:
    report.complete = verdict = find_gap(analysis, budget)
    rules = report.rules
    needed = rules.default is None and not rules.base and rules.policy not in (Policy.SCORE, Policy.COLLECT)
    if verdict.state is State.REFUTED:
        what = "and there is no default" if needed else "the default decides" if rules.default else "nothing fires"
        level = Level.ERROR if needed else Level.NOTE
        report.findings.append(Finding(Kind.GAP, level, (), f"no rule covers some input, {what}", verdict.rows))
    _unknown(report, verdict, "whether rules cover all input", must=needed)


def _claims(report: CheckReport, analysis: Analysis, budget: Budget) -> None:
    rules = report.rules
    for index, claim in enumerate(rules.claims):
        verdict = prove(analysis, index, budget.part(1 / (len(rules.claims) - index)))
        text = claim_text(claim, rules)
        report.claims.append((text, verdict))
        if verdict.state is State.REFUTED:
            report.findings.append(Finding(Kind.CLAIM, Level.ERROR, (), f"not true: {text}", verdict.rows))
        _unknown(report, verdict, f"whether {text}", must=True)


def _unknown(report: CheckReport, verdict: Verdict, what: str, *, must: bool) -> None:
    """Say that something is not known; a warning where it would be a finding."""
    if verdict.state is State.UNKNOWN:
        level = Level.WARNING if must else Level.NOTE
        text = f"it is not known {what}" + (f": {verdict.reason}" if verdict.reason else "")
        report.findings.append(Finding(Kind.UNKNOWN, level, (), text))


def rows_text(report: CheckReport, finding: Finding) -> list[str]:
    """The rows of a finding, a line each."""
    return [row_text(report.rules, row) for row in finding.rows]
