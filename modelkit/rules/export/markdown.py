"""A rule set as a Markdown page that a person reads: the columns with their units, and each rule as a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from modelkit.report.markdown import code, escape, table
from modelkit.rules.columns import Column, number_text
from modelkit.rules.conditions import And, Between, Compare, Condition, In, IsMissing, Linear, Not, Operator, Or
from modelkit.rules.export.errors import require_encodable
from modelkit.rules.model import Action, Label, Number, Outcome, Policy, RuleSet
from modelkit.rules.text import condition_text, sum_text, value_text

_POLICIES = {
    Policy.FIRST: "The first rule whose condition holds decides.",
    Policy.PRIORITY: "Of the rules whose conditions hold, the one of highest priority decides; of equals the first.",
    Policy.UNIQUE: "At most one rule's condition holds; it decides.",
    Policy.VOTE: "Every rule whose condition holds adds its weight to its label; the largest sum decides.",
    Policy.SCORE: "The numbers of all rules whose conditions hold are added up.",
    Policy.COLLECT: "All rules whose conditions hold are collected.",
}
_WORDS = {
    Operator.EQ: "is",
    Operator.NE: "is there and is not",
    Operator.LT: "is less than",
    Operator.LE: "is at most",
    Operator.GT: "is more than",
    Operator.GE: "is at least",
}


def to_markdown(rules: RuleSet) -> str:
    """Write the page; names and texts are shown as they are, never as markup.

    Raises:
        ExportError: Some text is no valid Unicode.
    """
    require_encodable(rules, "markdown")
    lines = [f"# {escape(rules.name)}", ""]
    if rules.description:
        lines += [escape(rules.description), ""]
    lines += [_POLICIES[rules.policy], "", "## Columns", ""]
    lines += table(
        ["column", "type", "unit", "values", "missing", "what it is"], map(_column, rules.columns), names=1
    )
    lines += ["", "## Rules", ""]
    for number, index in enumerate(rules.order, 1):
        rule = rules.rules[index]
        sentence = f"If {_sentence(rule.when, rules.column)}, then {_outcome(rule.then, rules)}."
        extra = f" Weight {number_text(rule.weight)}." if rule.weight != 1 else ""
        extra += f" Priority {number_text(rule.priority)}." if rules.policy is Policy.PRIORITY else ""
        lines.append(f"{number}. {escape(rule.name)}: {sentence}{extra}")
        lines += [f"   {escape(rule.description)}"] if rule.description else []
    lines += ["", *_rest(rules), "", "## Table", "", *_table(rules)]
    return "\n".join(lines) + "\n"


def _column(column: Column) -> tuple[object, ...]:
    values = ", ".join(column.values) + (", or others" if column.other else "")
    if column.low is not None or column.high is not None:
        low, high = (None if each is None else value_text(each, column) for each in (column.low, column.high))
        values = f"from {low}" if high is None else f"up to {high}" if low is None else f"{low} to {high}"
    missing = "possible" if column.missing else "no"
    return (column.name, column.type, column.unit, values, missing, column.description)


def _table(rules: RuleSet) -> list[str]:
    body = [
        (index, rules.rules[index].name, condition_text(rules.rules[index].when, rules.column), _plain(rules, index))
        for index in rules.order
    ]
    return table(["rule_id", "rule", "when", "then"], body)


def _plain(rules: RuleSet, index: int) -> str:
    then = rules.rules[index].then
    return str(then.value) if isinstance(then, Label | Action) else _number(then)


def _number(outcome: Outcome) -> str:
    if isinstance(outcome, Number):
        return number_text(outcome.value)
    assert not isinstance(outcome, Label | Action)
    return f"{number_text(outcome.intercept)} + {sum_text(outcome.terms)}"


def _rest(rules: RuleSet) -> list[str]:
    """What else makes the result: default, base scores, clamp."""
    lines = []
    if rules.default is not None:
        where = "The sum begins with" if rules.policy is Policy.SCORE else "Where no rule's condition holds:"
        lines.append(f"{where} {_outcome(rules.default, rules)}.")
    elif not rules.base and rules.policy is not Policy.SCORE:
        lines.append("Where no rule's condition holds, there is no result.")
    if rules.base:
        listed = ", ".join(f"{escape(label)} {number_text(score)}" for label, score in rules.base)
        lines.append(f"Scores before any vote: {listed}.")
    if rules.clamp is not None:
        bounds = [("at least", rules.clamp.low), ("at most", rules.clamp.high)]
        told = " and ".join(f"{how} {number_text(bound)}" for how, bound in bounds if bound is not None)
        lines += [f"The result is kept {told}."] if told else []
    return ["\n".join(lines)] if lines else []


def _outcome(outcome: Outcome, rules: RuleSet) -> str:
    if isinstance(outcome, Label | Action):
        return f"**{escape(outcome.value)}**"
    sign = "add " if rules.policy is Policy.SCORE and outcome is not rules.default else ""
    return f"{sign}{escape(_number(outcome))}"


def _sentence(condition: Condition, columns: Mapping[str, Column]) -> str:
    if isinstance(condition, And | Or):
        if not condition.terms:
            return "anything is so" if isinstance(condition, And) else "the impossible is so"
        parts = [_inner(term, columns) for term in condition.terms]
        return (" and " if isinstance(condition, And) else " or ").join(parts)
    if isinstance(condition, Not):
        return f"it is not so that ({_sentence(condition.term, columns)})"
    if isinstance(condition, Linear):
        return f"{escape(sum_text(condition.terms))} {_WORDS[condition.op]} {number_text(condition.bound)}"
    column = columns[condition.column]
    name = code(column.name)
    unit = f" {escape(column.unit)}" if column.unit else ""
    if isinstance(condition, IsMissing):
        return f"{name} is missing"
    if isinstance(condition, Between):
        low, high = (escape(value_text(each, column)) for each in (condition.low, condition.high))
        return f"{name} is from {low} to {high}{unit}"
    if isinstance(condition, In):
        values = ", ".join(escape(value_text(value, column)) for value in condition.values) or "nothing"
        return f"{name} is {'there and none' if condition.negated else 'one'} of {values}{unit}"
    assert isinstance(condition, Compare)
    return f"{name} {_WORDS[condition.op]} {escape(value_text(condition.value, column))}{unit}"


def _inner(condition: Condition, columns: Mapping[str, Column]) -> str:
    text = _sentence(condition, columns)
    return f"({text})" if isinstance(condition, And | Or) and len(condition.terms) > 1 else text
