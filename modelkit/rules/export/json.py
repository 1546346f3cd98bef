"""A rule set as JSON of a documented, versioned schema, and back to an equal rule set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from modelkit.errors import ConfigError
from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.conditions import And, Between, Compare, Condition, In, IsMissing, Linear, Not, Operator, Or
from modelkit.rules.document import SCHEMA
from modelkit.rules.export.errors import one_line, require_encodable
from modelkit.rules.export.json_schema import RulesJson
from modelkit.rules.model import (
    Action,
    Bound,
    Claim,
    Clamp,
    Forbid,
    Label,
    LinearScore,
    Monotone,
    Number,
    Outcome,
    Policy,
    Require,
    Rule,
    RuleSet,
)

MAX_BYTES = 64 << 20
_SHOWN = 20


def to_json(rules: RuleSet) -> str:
    """Write a rule set; `from_json` gives an equal one back.

    Raises:
        ExportError: Some text is no valid Unicode.
    """
    require_encodable(rules, "json")
    return json.dumps(_document(rules), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of what `to_json` writes (draft 2020-12)."""
    found = RulesJson.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **found}


def from_json(text: str | bytes) -> RuleSet:
    """Read what `to_json` wrote.

    Args:
        text: The document, at most 64 MiB.

    Raises:
        ConfigError: It is no valid rule set; with all problems.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError("the rule set cannot be read", [f"it is larger than {MAX_BYTES >> 20} MiB"])
    try:
        json.loads(text, object_pairs_hook=_unique)
        found = RulesJson.model_validate_json(text, strict=True)
    except ValidationError as error:
        lines = [
            one_line(f"{'.'.join(map(str, each['loc'])) or 'the document'}: {each['msg']}")
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigError("the rule set cannot be read", lines[:_SHOWN]) from error
    except (ValueError, RecursionError) as error:
        what = "it is nested too deep" if isinstance(error, RecursionError) else one_line(str(error))
        raise ConfigError("the rule set cannot be read", [what]) from error
    try:
        return _rule_set(found.model_dump())
    except ValueError as error:  # conditions are nested too deep
        raise ConfigError("the rule set cannot be read", [str(error)]) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice in one object")
    return found


def _document(rules: RuleSet) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": rules.name,
        "description": rules.description,
        "columns": [_column(column) for column in rules.columns],
        "policy": str(rules.policy),
        "default": None if rules.default is None else _outcome(rules.default),
        "labels": list(rules.labels),
        "base": [{"label": label, "score": float(score)} for label, score in rules.base],
        "clamp": None if rules.clamp is None else {"low": rules.clamp.low, "high": rules.clamp.high},
        "rules": [
            {
                "name": rule.name,
                "description": rule.description,
                "when": _condition(rule.when),
                "then": _outcome(rule.then),
                "priority": float(rule.priority),
                "weight": float(rule.weight),
            }
            for rule in rules.rules
        ],
        "claims": [_claim(claim) for claim in rules.claims],
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": str(column.type),
        "low": column.low,
        "high": column.high,
        "values": list(column.values),
        "other": column.other,
        "missing": column.missing,
        "unit": column.unit,
        "description": column.description,
    }


def _terms(terms: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
    return [{"column": name, "coefficient": float(factor)} for name, factor in terms]


def _outcome(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, LinearScore):
        return {"kind": "linear", "intercept": float(outcome.intercept), "terms": _terms(outcome.terms)}
    if isinstance(outcome, Number):
        return {"kind": "number", "value": float(outcome.value)}
    return {"kind": "label" if isinstance(outcome, Label) else "action", "value": outcome.value}


def _condition(condition: Condition) -> dict[str, Any]:
    if isinstance(condition, And | Or):
        kind = "all" if isinstance(condition, And) else "any"
        return {"kind": kind, "terms": [_condition(term) for term in condition.terms]}
    if isinstance(condition, Not):
        return {"kind": "not", "term": _condition(condition.term)}
    if isinstance(condition, Linear):
        terms = _terms(condition.terms)
        return {"kind": "linear", "terms": terms, "op": str(condition.op), "bound": float(condition.bound)}
    found: dict[str, Any] = {"kind": "missing", "column": condition.column}
    if isinstance(condition, Compare):
        return found | {"kind": "compare", "op": str(condition.op), "value": condition.value}
    if isinstance(condition, Between):
        return found | {"kind": "between", "low": condition.low, "high": condition.high}
    if isinstance(condition, In):
        return found | {"kind": "in", "values": list(condition.values), "negated": condition.negated}
    return found


def _claim(claim: Claim) -> dict[str, Any]:
    if isinstance(claim, Monotone):
        return {"kind": "monotone", "column": claim.column, "increasing": claim.increasing, "label": claim.label}
    when = _condition(claim.when)
    if isinstance(claim, Bound):
        return {"kind": "bound", "low": claim.low, "high": claim.high, "when": when}
    kind = "forbid" if isinstance(claim, Forbid) else "require"
    return {"kind": kind, "labels": list(claim.labels), "when": when}


def _rule_set(found: Mapping[str, Any]) -> RuleSet:
    rules = [
        Rule(
            r["name"], _as_condition(r["when"]), _as_outcome(r["then"]), r["priority"], r["weight"], r["description"]
        )
        for r in found["rules"]
    ]
    return RuleSet(
        tuple(Column(**{**column, "type": ColumnType(column["type"])}) for column in found["columns"]),
        tuple(rules),
        Policy(found["policy"]),
        None if found["default"] is None else _as_outcome(found["default"]),
        tuple(found["labels"]),
        tuple((base["label"], base["score"]) for base in found["base"]),
        None if found["clamp"] is None else Clamp(**found["clamp"]),
        tuple(_as_claim(claim) for claim in found["claims"]),
        found["name"],
        found["description"],
    )


def _as_terms(terms: tuple[Mapping[str, Any], ...]) -> tuple[tuple[str, float], ...]:
    return tuple((term["column"], term["coefficient"]) for term in terms)


def _as_outcome(found: Mapping[str, Any]) -> Outcome:
    if found["kind"] == "linear":
        return LinearScore(found["intercept"], _as_terms(found["terms"]))
    kinds: dict[str, Any] = {"label": Label, "action": Action, "number": Number}
    outcome: Outcome = kinds[found["kind"]](found["value"])
    return outcome


def _as_condition(found: Mapping[str, Any]) -> Condition:
    match found["kind"]:
        case "all":
            return And(tuple(_as_condition(term) for term in found["terms"]))
        case "any":
            return Or(tuple(_as_condition(term) for term in found["terms"]))
        case "not":
            return Not(_as_condition(found["term"]))
        case "linear":
            return Linear(_as_terms(found["terms"]), Operator(found["op"]), found["bound"])
        case "compare":
            return Compare(found["column"], Operator(found["op"]), found["value"])
        case "between":
            return Between(found["column"], found["low"], found["high"])
        case "in":
            return In(found["column"], tuple(found["values"]), found["negated"])
        case _:
            return IsMissing(found["column"])


def _as_claim(found: Mapping[str, Any]) -> Claim:
    if found["kind"] == "monotone":
        return Monotone(found["column"], found["increasing"], found["label"])
    when = _as_condition(found["when"])
    if found["kind"] == "bound":
        return Bound(found["low"], found["high"], when)
    return (Forbid if found["kind"] == "forbid" else Require)(tuple(found["labels"]), when)
