"""How sure a rule set is of each class, and how well that fits: the Brier score."""

from __future__ import annotations

import numpy as np

from modelkit.rules.evaluate import Table, evaluate
from modelkit.rules.learn.additive import softmax
from modelkit.rules.learn.problem import Problem
from modelkit.rules.model import Policy, RuleSet

_PRIOR = 0.5  # rows of each class that every rule is thought to have seen, in the mix of all rows


def class_shares(rules: RuleSet, train: Problem, table: Table) -> np.ndarray:
    """The probability of each class: float64 [N, K].

    Of rules that vote it is the softmax of the scores, which they were fitted for; of a list the mix of the training
    rows that the deciding rule took, drawn a little towards the mix of all.

    Args:
        rules: The rule set.
        train: The rows that it was learned from.
        table: Rows to judge.
    """
    found = evaluate(rules, table)
    if rules.policy is Policy.VOTE:
        return softmax(found.scores)
    width = len(train.classes)
    truth = np.eye(width)[train.truth]
    took = evaluate(rules, train.table).rule_id
    prior = _PRIOR * width * truth.mean(axis=0)
    counts = np.array([truth[took == rule].sum(axis=0) + prior for rule in (*range(len(rules.rules)), -1)])
    shares: np.ndarray = (counts / counts.sum(axis=1, keepdims=True))[found.rule_id]
    return shares


def brier(rules: RuleSet, train: Problem, test: Problem) -> float:
    """Half the mean squared error of the probabilities (Brier 1950): 0 is best, 1 worst."""
    truth = np.eye(len(test.classes))[test.truth]
    return float(((class_shares(rules, train, test.table) - truth) ** 2).sum(axis=1).mean() / 2)
