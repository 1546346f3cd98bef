"""Rule sets put together from learned boxes: bounds of a column merged, rules named, outcomes rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from modelkit.rules.conditions import (
    Compare,
    Condition,
    In,
    IsMissing,
    Linear,
    Not,
    Operator,
    all_of,
    literals,
)
from modelkit.rules.learn.atoms import Literal
from modelkit.rules.learn.problem import Problem
from modelkit.rules.model import Label, Number, Outcome, Policy, Rule, RuleSet

Conjunction = tuple[Literal, ...]


def merged(terms: Conjunction) -> Conjunction:
    """The same conjunction with what follows from the rest left out: one bound a side, one set of categories.

    Comparisons of a column stay together, columns in the order in which they first come.
    """
    found: list[Literal] = []
    for name in dict.fromkeys(_about(term) for term in terms):
        found += _of_column([term for term in terms if _about(term) == name])
    return tuple(found)


def _about(term: Literal) -> str | tuple[tuple[str, float], ...]:
    """The column, or the sum, that a comparison looks at."""
    if isinstance(term, Linear):
        return term.terms
    if isinstance(term, Not):
        assert isinstance(term.term, IsMissing)
        return term.term.column
    return term.column


def _of_column(terms: list[Literal]) -> list[Literal]:
    terms = list(dict.fromkeys(terms))
    found: list[Literal] = [term for term in terms if isinstance(term, IsMissing)]
    bounds = [t for t in terms if isinstance(t, Compare | Linear)]
    low, high = ([t for t in bounds if t.op is op] for op in (Operator.GT, Operator.LE))
    found += [max(low, key=_bound)] if low else []
    found += [min(high, key=_bound)] if high else []
    found += _of_values(terms)
    # Any comparison is false of a missing value, so "is there" follows from it.
    if all(isinstance(term, IsMissing) for term in found):
        found += [term for term in terms if isinstance(term, Not)]
    return found


def _bound(term: Compare | Linear) -> float:
    return term.bound if isinstance(term, Linear) else float(term.value)


def _of_values(terms: list[Literal]) -> list[Literal]:
    """Comparisons with single values and groups of them, as one."""
    equal = [t for t in terms if isinstance(t, Compare) and t.op is Operator.EQ]
    groups = [t for t in terms if isinstance(t, In)]
    unequal = [t for t in terms if isinstance(t, Compare) and t.op is Operator.NE]
    if equal or groups:
        sets = [{t.value} for t in equal] + [set(t.values) for t in groups]
        inside = set.intersection(*sets) - {t.value for t in unequal}
        if not inside:  # it never holds; what makes it so stays
            return [*equal, *groups, *unequal]
        column = (equal or groups)[0].column
        values = tuple(sorted(inside, key=str))
        return [Compare(column, Operator.EQ, values[0]) if len(values) == 1 else In(column, values)]
    if len(unequal) > 1:
        return [In(unequal[0].column, tuple(sorted((t.value for t in unequal), key=str)), negated=True)]
    return list(unequal)


def condition(terms: Conjunction) -> Condition:
    """A conjunction as a condition; a column's thresholds merged."""
    return all_of(*merged(terms))


def first_match(
    problem: Problem, boxes: Sequence[Conjunction], outcomes: Sequence[float], default: float, name: str
) -> RuleSet:
    """A list of rules of which the first that holds decides.

    Args:
        problem: What was learned from.
        boxes: The conditions, in order.
        outcomes: Index of each rule's class, or its number.
        default: The outcome where none holds.
        name: Name of the set.
    """
    rules = tuple(
        Rule(f"rule {i + 1}", condition(box), _outcome(problem, then))
        for i, (box, then) in enumerate(zip(boxes, outcomes, strict=True))
    )
    return RuleSet(problem.columns, rules, Policy.FIRST, _outcome(problem, default), problem.classes, name=name)


def _outcome(problem: Problem, value: float) -> Outcome:
    return Number(float(value)) if problem.is_numeric else Label(problem.classes[int(value)])


def votes(
    problem: Problem,
    boxes: Sequence[Conjunction],
    classes: Sequence[int],
    weights: np.ndarray,
    base: np.ndarray,
    name: str,
) -> RuleSet:
    """Rules that each add a weight to the score of one class; the class of the largest score is given.

    Args:
        problem: What was learned from.
        boxes: The conditions.
        classes: The class of each rule.
        weights: What each rule adds, float64 [R].
        base: Score of each class before any rule, float64 [K].
        name: Name of the set.
    """
    if len(problem.classes) == 2:
        # One score is enough for two classes: evidence against one is evidence for the other.
        base = base - base.min()
        flipped = [(1 - k, -w) if w < 0 else (k, w) for k, w in zip(classes, weights, strict=True)]
        classes, weights = [k for k, _ in flipped], np.array([w for _, w in flipped])
    else:
        base = base - base.min()
    rules = tuple(
        Rule(f"rule {i + 1}", condition(box), Label(problem.classes[k]), weight=_rounded(w))
        for i, (box, k, w) in enumerate(zip(boxes, classes, weights, strict=True))
    )
    scores = tuple((label, _rounded(base[k])) for k, label in enumerate(problem.classes))
    return RuleSet(
        problem.columns,
        rules,
        Policy.VOTE,
        Label(problem.classes[int(base.argmax())]),
        problem.classes,
        scores,
        name=name,
    )


def additive(
    problem: Problem, boxes: Sequence[Conjunction], weights: np.ndarray, intercept: float, name: str
) -> RuleSet:
    """Rules whose numbers are added up, with an intercept as the default."""
    rules = tuple(
        Rule(f"rule {i + 1}", condition(box), Number(float(w)))
        for i, (box, w) in enumerate(zip(boxes, weights, strict=True))
    )
    return RuleSet(problem.columns, rules, Policy.SCORE, Number(float(intercept)), name=name)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def size(rules: RuleSet) -> tuple[int, int]:
    """Rules and literals of a set. The default of a list counts as a rule, as a leaf of a tree does."""
    extra = 1 if rules.policy is Policy.FIRST else 0
    return len(rules.rules) + extra, sum(literals(rule.when) for rule in rules.rules)


def rescaled(rules: RuleSet, mean: float, scale: float) -> RuleSet:
    """Predictions of a numeric set times a scale plus a mean, of six digits; other sets as they are."""
    if not rules.is_numeric or (mean == 0.0 and scale == 1.0):
        return rules
    shift = 0.0 if rules.policy is Policy.SCORE else mean

    def moved(outcome: Outcome | None, add: float) -> Outcome | None:
        if isinstance(outcome, Number):
            return Number(float(f"{outcome.value * scale + add:.6g}"))
        return outcome

    changed = tuple(replace(rule, then=moved(rule.then, shift) or rule.then) for rule in rules.rules)
    return replace(rules, rules=changed, default=moved(rules.default, mean))
