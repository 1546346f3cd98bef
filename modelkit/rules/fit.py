"""How rules do on data: how often each fires and decides, and how often it is right."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelkit.rules.evaluate import Evaluation, Table, evaluate, fires
from modelkit.rules.model import RuleSet

_BLOCK = 4096


@dataclass(frozen=True)
class RuleFit:
    """One rule on data.

    Attributes:
        rule: Its name; "default" for the default.
        coverage: Share of the rows on which it fires.
        decides: Share of the rows that it decides.
        precision: Of the rows on which it fires, the share whose true label is the rule's; None without labels, or
            where it never fires.
        lift: How many times more often the label is right there than in all rows; None where there is none.
        error: For predictions: root mean square error on the rows that it decides.
    """

    rule: str
    coverage: float
    decides: float
    precision: float | None = None
    lift: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Fit:
    """A rule set on data.

    Attributes:
        rows: Number of rows.
        quality: Figures of all: accuracy, or RMSE and R².
        rules: Figures of each rule, then of the default.
    """

    rows: int
    quality: dict[str, float | None]
    rules: tuple[RuleFit, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"rows": self.rows, "quality": self.quality, "rules": [asdict(rule) for rule in self.rules]}


def fit(rules: RuleSet, table: Table, labels: np.ndarray | None) -> Fit:
    """Measure a rule set on data.

    Args:
        rules: The rule set.
        table: Rows.
        labels: True labels as text, or numbers for rule sets that predict them; None where they are not known.
    """
    result = evaluate(rules, table)
    count = len(result.rule_id)
    covered, right = np.zeros(len(rules.rules) + 1), np.zeros(len(rules.rules) + 1)
    truth = _truth(rules, labels)
    for start in range(0, count, _BLOCK):
        part = {name: values[start : start + _BLOCK] for name, values in table.items()}
        fired = fires(rules, part)
        fired = np.column_stack([fired, ~fired.any(axis=1)])
        covered += fired.sum(axis=0)
        if truth is not None:
            right += (fired & truth[start : start + _BLOCK]).sum(axis=0)
    decided = np.bincount(
        np.where(result.rule_id < 0, len(rules.rules), result.rule_id), minlength=len(rules.rules) + 1
    )
    names = [*(rule.name for rule in rules.rules), "default"]
    base = None if truth is None else truth.mean(axis=0)
    found = []
    for i, name in enumerate(names):
        precision = None if truth is None or not covered[i] else float(right[i] / covered[i])
        lift = None if precision is None or base is None or not base[i] else float(precision / base[i])
        error = _error(result, labels, i if i < len(rules.rules) else -1) if rules.is_numeric else None
        found.append(RuleFit(name, float(covered[i] / count), float(decided[i] / count), precision, lift, error))
    return Fit(count, _quality(rules, result, labels), tuple(found))


def _truth(rules: RuleSet, labels: np.ndarray | None) -> np.ndarray | None:
    """Whether each rule's label, and last the default's, is the true one: bool [N, R + 1]."""
    if labels is None or rules.is_numeric:
        return None
    named = [str(getattr(outcome, "value", "")) for outcome in (*(r.then for r in rules.rules), rules.default)]
    return np.asarray(labels[:, None] == np.array(named, object)[None, :], bool)


def _error(result: Evaluation, labels: np.ndarray | None, rule: int) -> float | None:
    if labels is None or result.prediction is None:
        return None
    chosen = result.rule_id == rule
    return float(np.sqrt(np.mean((result.prediction[chosen] - labels[chosen]) ** 2))) if chosen.any() else None


def _quality(rules: RuleSet, result: Evaluation, labels: np.ndarray | None) -> dict[str, float | None]:
    if labels is None:
        return {}
    if result.prediction is None:
        given = result.result.astype(object)
        return {"accuracy": float(np.mean([str(a) == b for a, b in zip(given, labels, strict=True)]))}
    error = result.prediction - labels
    spread = float(np.var(labels))
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1.0 - float(np.mean(error**2)) / spread if spread else None,
    }
