"""Shorter rule lists that give the same results on every input: each step is proved by containment of boxes.

Of a list of which the first rule that holds decides:

- a rule inside an earlier one never decides, and goes;
- a rule whose outcome is the default's goes when no later rule of another outcome could take its rows;
- a comparison goes when every row that the rule would gain without it is taken by an earlier rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from modelkit.rules.columns import Column
from modelkit.rules.conditions import (
    And,
    Compare,
    Condition,
    In,
    IsMissing,
    Not,
    Operator,
    all_of,
)
from modelkit.rules.model import Policy, Rule, RuleSet

Terms = tuple[Condition, ...]


def simplified(rules: RuleSet) -> RuleSet:
    """The same results from fewer rules and comparisons; only lists of conjunctions are changed."""
    if rules.policy is not Policy.FIRST:
        return rules
    while True:
        shorter = _without_rule(rules) or _without_literal(rules)
        if shorter is None:
            return rules
        rules = shorter


def terms_of(condition: Condition) -> Terms:
    """The parts of a conjunction."""
    return condition.terms if isinstance(condition, And) else (condition,)


def _without_rule(rules: RuleSet) -> RuleSet | None:
    boxes = [terms_of(rule.when) for rule in rules.rules]
    for i, rule in enumerate(rules.rules):
        if len(rules.rules) == 1:
            break
        dead = _never(boxes[i], rules.column) or any(_implies(boxes[i], box, rules.column) for box in boxes[:i])
        later = rules.rules[i + 1 :]
        same = rule.then == rules.default and all(
            other.then == rule.then or _apart(boxes[i], terms_of(other.when), rules.column) for other in later
        )
        if dead or same:
            return replace(rules, rules=_numbered([*rules.rules[:i], *later]))
    return None


def _numbered(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    return tuple(replace(rule, name=f"rule {i + 1}") for i, rule in enumerate(rules))


def _without_literal(rules: RuleSet) -> RuleSet | None:
    boxes = [terms_of(rule.when) for rule in rules.rules]
    for i, box in enumerate(boxes):
        for j, literal in enumerate(box):
            rest = (*box[:j], *box[j + 1 :])
            # Without the comparison the rule would gain the rows where it is false and the rest holds.
            gained = [(*rest, *other) for other in _negations(literal, rules.column)]
            if rest and all(_taken(region, boxes[:i], rules.column) for region in gained):
                changed = replace(rules.rules[i], when=all_of(*rest))
                return replace(rules, rules=(*rules.rules[:i], changed, *rules.rules[i + 1 :]))
    return None


def _taken(region: Terms, earlier: Sequence[Terms], columns: dict[str, Column]) -> bool:
    return _never(region, columns) or any(_implies(region, box, columns) for box in earlier)


def _negations(literal: Condition, columns: dict[str, Column]) -> Iterator[Terms]:
    """Conjunctions that together hold where a comparison does not."""
    if isinstance(literal, Compare):
        opposite = _OPPOSITE[literal.op]
        yield (Compare(literal.column, opposite, literal.value),)
        if columns[literal.column].missing:
            yield (IsMissing(literal.column),)
    elif isinstance(literal, In):
        yield (In(literal.column, literal.values, not literal.negated),)
        if columns[literal.column].missing:
            yield (IsMissing(literal.column),)
    elif isinstance(literal, IsMissing):
        yield (Not(literal),)
    elif isinstance(literal, Not):
        yield (literal.term,)
    else:
        yield ()  # not known: everything


_OPPOSITE = {
    Operator.EQ: Operator.NE,
    Operator.NE: Operator.EQ,
    Operator.LT: Operator.GE,
    Operator.GE: Operator.LT,
    Operator.LE: Operator.GT,
    Operator.GT: Operator.LE,
}


def _implies(box: Terms, other: Terms, columns: dict[str, Column]) -> bool:
    """Whether each comparison of another box follows from this one; False where that is not plain."""
    return all(_follows(literal, box, columns) for literal in other)


def _follows(literal: Condition, box: Terms, columns: dict[str, Column]) -> bool:
    """Whether a comparison follows: because it is there, or because its opposite leaves no value at all."""
    return literal in box or all(_never((*box, *other), columns) for other in _negations(literal, columns))


def _apart(box: Terms, other: Terms, columns: dict[str, Column]) -> bool:
    return _never((*box, *other), columns)


def _never(box: Terms, columns: dict[str, Column]) -> bool:
    """Whether a column is left without any value; False where that is not plain."""
    names = {name for term in box if (name := _name(term)) is not None}
    return any(_empty([term for term in box if _name(term) == name], columns[name]) for name in names)


def _name(term: Condition) -> str | None:
    if isinstance(term, Not):
        term = term.term
    return term.column if isinstance(term, Compare | In | IsMissing) else None


def _empty(terms: Sequence[Condition], column: Column) -> bool:
    missing = any(isinstance(term, IsMissing) for term in terms)
    there = any(isinstance(term, Compare | In | Not) for term in terms)
    if missing:
        return there or not column.missing
    allowed: set[object] | None = None
    refused: set[object] = set()
    low, high = (-float("inf"), True), (float("inf"), True)  # bound, whether it belongs to it
    for term in terms:
        if isinstance(term, In):
            if term.negated:
                refused |= set(term.values)
            else:
                allowed = set(term.values) if allowed is None else allowed & set(term.values)
        elif isinstance(term, Compare):
            value = term.value
            if term.op is Operator.EQ:
                allowed = {value} if allowed is None else allowed & {value}
            elif term.op is Operator.NE:
                refused.add(value)
            elif term.op in (Operator.GT, Operator.GE):
                low = max(low, (float(value), term.op is Operator.GE), key=lambda b: (b[0], not b[1]))
            else:
                high = min(high, (float(value), term.op is Operator.LE), key=lambda b: (b[0], b[1]))
    if allowed is not None:
        return not any(value not in refused and _within(value, low, high) for value in allowed)
    if column.type.is_text:
        return not column.other and set(column.values) <= refused
    return low[0] > high[0] or (low[0] == high[0] and not (low[1] and high[1]))


def _within(value: object, low: tuple[float, bool], high: tuple[float, bool]) -> bool:
    if isinstance(value, str):
        return True
    number = float(value)  # type: ignore[arg-type]
    above = number > low[0] or (number == low[0] and low[1])
    return above and (number < high[0] or (number == high[0] and high[1]))
