"""Learned rules as tables for a terminal of 80 columns."""

from __future__ import annotations

from rich.console import RenderableType

from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled
from modelkit.rules.columns import number_text
from modelkit.rules.learn.choose import Candidate
from modelkit.rules.learn.compose import size
from modelkit.rules.learn.learn import LearnReport
from modelkit.rules.model import LinearScore, Outcome, Policy, RuleSet
from modelkit.rules.text import condition_text


def render(report: LearnReport) -> RenderableType:
    """What was learned."""
    learned = report.learned
    metric = "R²" if learned.rules.is_numeric else "accuracy"
    rules, comparisons = size(learned.rules)
    quality = [f"cross-validated {_share(learned.chosen)}", f"training rows {learned.train:.3f}"]
    quality += [] if report.test is None else [f"test rows {report.test:.3f}"]
    rows = [
        ("files", ", ".join(report.files)),
        ("learner", f"{learned.chosen.method}; the best of {learned.tried} learners and sizes"),
        ("size", f"{rules} rules, {comparisons} comparisons"),
        (metric, ", ".join(quality)),
    ]
    if learned.literals_saved:
        rows.append(("simplified", f"{learned.literals_saved} comparisons less, the same results on every input"))
    if learned.cuts:
        cost = sum(cut.cost for cut in learned.cuts)
        rows.append(("pruned", f"{len(learned.cuts)} cuts; {metric} on the training rows falls by {cost:.4f}"))
    parts: list[RenderableType] = [
        titled(f"{report.source['name']}: learned", pairs(rows)),
        titled("Rules", rule_table(learned.rules)),
        titled("Accuracy against comparisons", _front(learned.pareto, learned.chosen)),
    ]
    if report.notes:
        parts.append(notes(list(report.notes)))
    return stack(parts)


def _share(candidate: Candidate) -> str:
    return f"{candidate.quality:.3f} ± {candidate.error:.3f}"


def rule_table(rules: RuleSet) -> RenderableType:
    """The rules, one a line."""
    adds = rules.policy in (Policy.VOTE, Policy.SCORE)
    table = new_table("when", "adds" if adds else "then", whole=("adds" if adds else "then",))
    for rule in rules.rules:
        then = outcome_text(rule.then)
        if rules.policy is Policy.VOTE:
            then = f"{number_text(rule.weight)} to {then}"
        add_row(table, condition_text(rule.when, rules.column), then)
    base = {label: score for label, score in rules.base if score}
    if base:
        add_row(table, "always", ", ".join(f"{number_text(score)} to {label}" for label, score in base.items()))
    elif rules.default is not None and not rules.base:
        add_row(table, "always" if adds else "otherwise", outcome_text(rules.default))
    return table


def outcome_text(outcome: Outcome) -> str:
    """An outcome in a few characters."""
    if isinstance(outcome, LinearScore):
        return "a linear score"
    return number_text(outcome.value) if isinstance(outcome.value, float) else str(outcome.value)


def _front(front: tuple[Candidate, ...], chosen: Candidate) -> RenderableType:
    table = new_table("learner", "rules", "comparisons", "quality", "")
    for each in front:
        mark = "chosen" if each == chosen else ""
        add_row(table, each.method, f"{each.rules:.1f}", f"{each.literals:.1f}", _share(each), mark)
    return table
