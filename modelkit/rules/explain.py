"""Why a row got its result: the rule that decided, and what each of its comparisons says of the row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.errors import ModelError
from modelkit.files import Kind, require_file, sniff
from modelkit.rules.conditions import atoms, columns_of
from modelkit.rules.evaluate import Evaluation, Table, evaluate, fires, holds, outcome_values
from modelkit.rules.model import Policy, RuleSet
from modelkit.rules.onnx_build import open_rules
from modelkit.rules.table import read_table, row_of, row_text
from modelkit.rules.text import condition_text
from modelkit.rules.verify import first_difference, run_rules
from modelkit.runtime import make_session

SCHEMA = "modelkit.rules.explanation/1"


@dataclass(frozen=True)
class Explanation:
    """Why a row got its result.

    Attributes:
        row: Its number, counted from 0.
        values: The row on one line, only the columns that rules look at.
        result: Its label or prediction.
        rule_id: The rule that decided, -1 for the default.
        rule: Its name; "default".
        because: A sentence.
        literals: The comparisons of that rule's condition with the row's values, and whether each holds.
        fired: Names of all rules that fire.
        scores: Scores by label, with policies that reckon with them.
        adds: With the policy `score`, what the default and each rule that fires adds.
    """

    row: int
    values: str
    result: str | int | float
    rule_id: int
    rule: str
    because: str
    literals: tuple[tuple[str, bool], ...] = ()
    fired: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    adds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def explain(source: Path, data: Path, *, first: int = 0, count: int = 10) -> list[Explanation]:
    """Explain rows of a file.

    Args:
        source: An ONNX file that `build` made, which is run; or a rules file, which is evaluated.
        data: csv or parquet.
        first: The first row to explain, counted from 0.
        count: How many.

    Raises:
        ModelError: The ONNX file holds no rule set, or does not compute what its rule set says.
        DataError: The data does not fit.
    """
    is_onnx = sniff(require_file(source)) is Kind.ONNX
    rules = open_rules(source)
    table, _ = read_table(rules, data)
    part = {name: values[first : first + count] for name, values in table.items()}
    if not len(next(iter(part.values()))):
        return []
    result = evaluate(rules, part)
    if is_onnx:
        found = run_rules(make_session(source), rules, part)
        row = first_difference(result, found)
        if row is not None:
            raise ModelError(
                f"'{source.name}' gives another result for row {first + row} than the rules that it holds",
                "the file was changed after it was built; build it again",
            )
    return explanations(rules, part, result, first)


def explanations(rules: RuleSet, table: Table, result: Evaluation, first: int = 0) -> list[Explanation]:
    """Explain all rows of a table.

    Args:
        rules: The rule set.
        table: The rows.
        result: What they evaluate to.
        first: The number of the first row.
    """
    used = {name for rule in rules.rules for atom in atoms(rule.when) for name in columns_of(atom)}
    names = [column.name for column in rules.columns if column.name in used]
    fired = fires(rules, table)
    found = []
    for i, rule_id in enumerate(result.rule_id.tolist()):
        row = row_of(table, i)
        firing = [rules.rules[k].name for k in np.flatnonzero(fired[i])]
        value = result.result[i]
        found.append(
            Explanation(
                first + i,
                row_text(rules, row, names),
                value.item() if isinstance(value, np.generic) else value,
                rule_id,
                "default" if rule_id < 0 else rules.rules[rule_id].name,
                _because(rules, rule_id, len(firing)),
                _literals(rules, rule_id, {name: values[i : i + 1] for name, values in table.items()}),
                tuple(firing) if not rules.picks_one or len(firing) > 1 else (),
                {str(label): float(s) for label, s in zip(rules.classes, result.scores[i], strict=False)}
                if rules.policy in (Policy.VOTE, Policy.COLLECT)
                else {},
                _adds(
                    rules,
                    np.flatnonzero(fired[i]).tolist(),
                    {name: values[i : i + 1] for name, values in table.items()},
                ),
            )
        )
    return found


def _adds(rules: RuleSet, firing: list[int], table: Table) -> dict[str, float]:
    """What makes up a sum, in its order."""
    if rules.policy is not Policy.SCORE:
        return {}
    found = {} if rules.default is None else {"default": float(outcome_values(rules.default, table)[0])}
    for index in firing:
        rule = rules.rules[index]
        found[rule.name] = float(outcome_values(rule.then, table)[0])
    return found


def _because(rules: RuleSet, rule_id: int, firing: int) -> str:
    if rule_id < 0:
        return (
            "no rule fires, so the default decides" if not firing else "the base scores outweigh the rules that fire"
        )
    rule = rules.rules[rule_id]
    text = f"'{rule.name}' holds: {condition_text(rule.when, rules.column)}"
    if firing < 2:
        return text
    how = {
        Policy.FIRST: "the first",
        Policy.PRIORITY: "that of the highest priority",
        Policy.UNIQUE: "the first",
        Policy.VOTE: "the heaviest for the winning label",
        Policy.SCORE: "the one that adds most",
        Policy.COLLECT: "the first",
    }[rules.policy]
    return f"{text} ({how} of {firing} that fire)"


def _literals(rules: RuleSet, rule_id: int, table: Table) -> tuple[tuple[str, bool], ...]:
    if rule_id < 0:
        return ()
    row, found = row_of(table, 0), []
    for atom in dict.fromkeys(atoms(rules.rules[rule_id].when)):
        given = []
        for name in columns_of(atom):
            text = row_text(rules, row, [name])
            given.append(text if text.endswith(" missing") else text.replace(" = ", " is ", 1))
        found.append((f"{condition_text(atom, rules.column)}  ({', '.join(given)})", bool(holds(atom, table)[0])))
    return tuple(found)
