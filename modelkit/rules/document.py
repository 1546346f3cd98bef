"""A rule set as a YAML document that people can edit; `modelkit.rules.load` reads it back to an equal rule set."""

from __future__ import annotations

from typing import Any

from modelkit.config.yaml_strict import dump
from modelkit.rules.columns import Column, ColumnType, date_text
from modelkit.rules.conditions import ALWAYS, Condition
from modelkit.rules.model import (
    Action,
    Bound,
    Claim,
    Clamp,
    Forbid,
    Label,
    Monotone,
    Number,
    Outcome,
    Policy,
    Rule,
    RuleSet,
)
from modelkit.rules.text import condition_text

SCHEMA = "modelkit.rules/1"


def to_yaml(rules: RuleSet) -> str:
    """Write a rule set as YAML; `modelkit.rules.load.from_yaml` gives an equal one back."""
    return dump(document(rules))


def document(rules: RuleSet) -> dict[str, Any]:
    """A rule set as plain values, in the form of the YAML file; what has its default value is left out."""
    found: dict[str, Any] = {"name": rules.name}
    if rules.description:
        found["description"] = rules.description
    found["columns"] = {column.name: _column(column) for column in rules.columns}
    found["policy"] = str(rules.policy)
    found["outcome"] = outcome_kind(rules)
    if rules.labels:
        found["labels"] = list(rules.labels)
    if rules.base:
        found["base"] = [{"label": label, "score": score} for label, score in rules.base]
    if rules.default is not None:
        found["default"] = _outcome(rules.default)
    found["rules"] = [_rule(rule, rules) for rule in rules.rules]
    constraints = [*([] if rules.clamp is None else [_clamp(rules.clamp)]), *(_claim(c, rules) for c in rules.claims)]
    if constraints:
        found["constraints"] = constraints
    return found


def outcome_kind(rules: RuleSet) -> str:
    """What outcomes are: label, number or action."""
    if rules.is_numeric:
        return "number"
    return "action" if any(isinstance(outcome, Action) for outcome in rules.outcomes) else "label"


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"type": str(column.type)}
    if column.unit:
        found["unit"] = column.unit
    if column.values:
        found["values"] = list(column.values)
    if column.low is not None or column.high is not None:
        found["range"] = [_bound(column, column.low), _bound(column, column.high)]
    found |= {name: True for name in ("other", "missing") if getattr(column, name)}
    if column.description:
        found["description"] = column.description
    return found


def _bound(column: Column, value: float | None) -> float | int | str | None:
    if value is None:
        return None
    if column.type in (ColumnType.DATE, ColumnType.DATETIME):
        return date_text(value, column.type)
    return plain_number(value)


def plain_number(value: float) -> float | int:
    """A double as YAML writes it best: whole ones without a point."""
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else float(value)


def _outcome(outcome: Outcome) -> Any:
    if isinstance(outcome, Label | Action):
        return outcome.value
    if isinstance(outcome, Number):
        return plain_number(outcome.value)
    terms = [{"column": name, "coefficient": plain_number(value)} for name, value in outcome.terms]
    return {"intercept": plain_number(outcome.intercept), "linear": terms}


def _rule(rule: Rule, rules: RuleSet) -> dict[str, Any]:
    found: dict[str, Any] = {"name": rule.name}
    if rule.description:
        found["description"] = rule.description
    found |= {"when": condition_text(rule.when, rules.column), "then": _outcome(rule.then)}
    if rule.priority != 0 or rules.policy is Policy.PRIORITY:
        found["priority"] = plain_number(rule.priority)
    if rule.weight != 1:
        found["weight"] = plain_number(rule.weight)
    return found


def _clamp(clamp: Clamp) -> dict[str, Any]:
    return {"clamp": [None if bound is None else plain_number(bound) for bound in (clamp.low, clamp.high)]}


def _claim(claim: Claim, rules: RuleSet) -> dict[str, Any]:
    if isinstance(claim, Monotone):
        found: dict[str, Any] = {"monotone": claim.column, "direction": "rises" if claim.increasing else "falls"}
        return found if claim.label is None else {**found, "label": claim.label}
    if isinstance(claim, Bound):
        found = {} if claim.low is None else {"at least": plain_number(claim.low)}
        found |= {} if claim.high is None else {"at most": plain_number(claim.high)}
    else:
        found = {"forbid" if isinstance(claim, Forbid) else "require": list(claim.labels)}
    return {**found, **_when(claim.when, rules)}


def _when(condition: Condition, rules: RuleSet) -> dict[str, Any]:
    return {} if condition == ALWAYS else {"when": condition_text(condition, rules.column)}
