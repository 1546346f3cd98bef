"""Comparisons taken out of a rule set, those that cost least first; every step says what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelkit.rules.conditions import all_of
from modelkit.rules.learn.choose import quality
from modelkit.rules.learn.compose import size
from modelkit.rules.learn.problem import Problem
from modelkit.rules.learn.simplify import simplified, terms_of
from modelkit.rules.model import RuleSet
from modelkit.rules.text import condition_text


@dataclass(frozen=True)
class Cut:
    """One thing taken out.

    Attributes:
        rule: The rule's name.
        what: The comparison, or the whole condition where the rule went.
        cost: By how much the quality on the training rows fell (below 0 where it rose).
    """

    rule: str
    what: str
    cost: float


def pruned(rules: RuleSet, problem: Problem, most: int | None, *, free: bool = False) -> tuple[RuleSet, list[Cut]]:
    """Take out comparisons and rules until few enough are left.

    Args:
        rules: The rule set.
        problem: The training rows.
        most: Comparisons that may be left; None for any number.
        free: Whether to go on while that costs nothing on these rows.

    Returns:
        The rule set, and what was cut.
    """
    cuts: list[Cut] = []
    now = quality(rules, problem)
    while free or (most is not None and size(rules)[1] > most):
        options = _options(rules)
        if not options:
            return rules, cuts
        scored = [(quality(option, problem), -size(option)[1], -i) for i, (option, _, _) in enumerate(options)]
        best, _, index = max(scored)
        option, rule, what = options[-index]
        over = most is not None and size(rules)[1] > most
        if not over and best < now - 1e-12:
            return rules, cuts
        cuts.append(Cut(rule, what, now - best))
        rules, now = option, best
    return rules, cuts


def _options(rules: RuleSet) -> list[tuple[RuleSet, str, str]]:
    """The set with one comparison or one rule less: set, rule, what is gone."""
    found = []
    for i, rule in enumerate(rules.rules):
        terms = terms_of(rule.when)
        if len(terms) > 1:
            for j, term in enumerate(terms):
                shorter = replace(rule, when=all_of(*terms[:j], *terms[j + 1 :]))
                changed = replace(rules, rules=(*rules.rules[:i], shorter, *rules.rules[i + 1 :]))
                found.append((changed, rule.name, condition_text(term, rules.column)))
        if len(rules.rules) > 1:
            rest = tuple(
                replace(other, name=f"rule {n + 1}")
                for n, other in enumerate((*rules.rules[:i], *rules.rules[i + 1 :]))
            )
            found.append((replace(rules, rules=rest), rule.name, condition_text(rule.when, rules.column)))
    return [(simplified(each), rule, what) for each, rule, what in found]
