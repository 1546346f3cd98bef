"""A rule set: typed columns, rules of a condition and an outcome each, and the policy that decides between them.

All of it is immutable and checks itself when it is made. What it computes is written in `modelkit.rules.evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from modelkit.errors import ConfigError
from modelkit.rules.columns import Column
from modelkit.rules.conditions import ALWAYS, Condition
from modelkit.rules.typecheck import condition_problems, linear_problems, near, unknown_column


class Policy(StrEnum):
    """Which of the rules whose conditions hold decides."""

    FIRST = "first"
    PRIORITY = "priority"
    UNIQUE = "unique"
    VOTE = "vote"
    SCORE = "score"
    COLLECT = "collect"


@dataclass(frozen=True)
class Label:
    """The class that a rule gives: text, or a whole number from 0 on; one kind in a rule set."""

    value: str | int


@dataclass(frozen=True)
class Action:
    """The name of something to do; computed like a text label, and what `collect` gathers."""

    value: str


@dataclass(frozen=True)
class Number:
    """A number; what the policy `score` adds up."""

    value: float


@dataclass(frozen=True)
class LinearScore:
    """intercept + c1 * x1 + c2 * x2 + ..., summed from left to right in doubles; NaN where any x is missing."""

    intercept: float
    terms: tuple[tuple[str, float], ...]


Outcome = Label | Action | Number | LinearScore


@dataclass(frozen=True)
class Rule:
    """If the condition holds, then the outcome.

    Attributes:
        name: Its name, unique in the set.
        when: The condition.
        then: The outcome.
        priority: Larger comes first with the policy `priority`; rules of the same priority in their order.
        weight: What its vote counts (`vote`; may be negative), or its confidence (the other policies with labels).
        description: For people.
    """

    name: str
    when: Condition
    then: Outcome
    priority: float = 0.0
    weight: float = 1.0
    description: str = ""


@dataclass(frozen=True)
class Clamp:
    """Keeps a prediction within bounds, both inclusive; it changes the result, unlike a claim. NaN stays NaN."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Forbid:
    """Claim: where the condition holds, the result is none of these labels."""

    labels: tuple[str | int, ...]
    when: Condition = ALWAYS


@dataclass(frozen=True)
class Require:
    """Claim: where the condition holds, the result is one of these labels."""

    labels: tuple[str | int, ...]
    when: Condition = ALWAYS


@dataclass(frozen=True)
class Bound:
    """Claim: where the condition holds, the prediction is at least ``low`` and at most ``high``."""

    low: float | None = None
    high: float | None = None
    when: Condition = ALWAYS


@dataclass(frozen=True)
class Monotone:
    """Claim: when the column rises and all else stays, the result does not turn back.

    Attributes:
        column: An ordered column.
        increasing: Whether the prediction may only rise with it (else only fall).
        label: With labels, the one meant: once given, it stays given as the column rises (falls, where not
            ``increasing``). None for predictions.
    """

    column: str
    increasing: bool = True
    label: str | int | None = None


Claim = Forbid | Require | Bound | Monotone


@dataclass(frozen=True)
class RuleSet:
    """Rules over columns, and how one result is made of them.

    Attributes:
        columns: The columns, in the order of the ONNX file's inputs; there may be more than the rules look at.
        rules: The rules; ``rule_id`` of a result is an index into them.
        policy: Which rule decides.
        default: The outcome where no rule's condition holds; None where there is none. With the policy `score` it
            is added always (the intercept). With `vote`, it is not looked at where ``base`` is given.
        labels: All labels in the order of the columns of ``scores``; of equal votes the first wins. Empty for the
            order in which rules and default name them.
        base: Score that a label has before any vote (`vote` only). Where given, the best label is chosen even
            where no rule fires.
        clamp: Bounds that a prediction is kept in.
        claims: What the author says of the set; `rules check` proves or refutes it.
        name: For people.
        description: For people.

    Raises:
        ConfigError: It contradicts itself; with all problems.
    """

    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    policy: Policy = Policy.FIRST
    default: Outcome | None = None
    labels: tuple[str | int, ...] = ()
    base: tuple[tuple[str | int, float], ...] = ()
    clamp: Clamp | None = None
    claims: tuple[Claim, ...] = ()
    name: str = "rules"
    description: str = ""

    def __post_init__(self) -> None:
        problems = list(dict.fromkeys(_problems(self)))
        if problems:
            raise ConfigError(f"the rule set '{self.name}' has {len(problems)} problem(s)", problems)

    def with_claims(self, claims: tuple[Claim, ...]) -> RuleSet:
        """The same rules with other claims."""
        return replace(self, claims=claims)

    @cached_property
    def column(self) -> dict[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes of all rules, then the default."""
        return (*(rule.then for rule in self.rules), *([] if self.default is None else [self.default]))

    @cached_property
    def is_numeric(self) -> bool:
        """Whether it predicts numbers; otherwise it gives labels or actions."""
        return any(isinstance(outcome, Number | LinearScore) for outcome in self.outcomes)

    @cached_property
    def classes(self) -> tuple[str | int, ...]:
        """Labels or actions in the order of ``scores``: the declared ones, then others as they first come."""
        named = [o.value for o in self.outcomes if isinstance(o, Label | Action)]
        return tuple(dict.fromkeys([*self.labels, *named, *(label for label, _ in self.base)]))

    @cached_property
    def has_text_labels(self) -> bool:
        """Whether labels are text; otherwise they are whole numbers."""
        return all(isinstance(label, str) for label in self.classes)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Indices of the rules in the order in which the policy asks them."""
        indices = range(len(self.rules))
        if self.policy is Policy.PRIORITY:
            return tuple(sorted(indices, key=lambda i: -self.rules[i].priority))
        return tuple(indices)

    @property
    def picks_one(self) -> bool:
        """Whether one rule alone makes the result (first, priority, unique)."""
        return self.policy in (Policy.FIRST, Policy.PRIORITY, Policy.UNIQUE)


def _problems(rules: RuleSet) -> Iterator[str]:
    if not rules.columns:
        yield "there are no columns"
    if not rules.rules:
        yield "there are no rules"
    for kind, names in (("column", [c.name for c in rules.columns]), ("rule", [r.name for r in rules.rules])):
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            yield f"two {kind}s are called '{twice}'"
    for column in rules.columns:
        yield from column.problems()
    for rule in rules.rules:
        for text in condition_problems(rule.when, rules.column):
            yield f"rule '{rule.name}': {text}"
        if not math.isfinite(rule.weight) or not math.isfinite(rule.priority):
            yield f"rule '{rule.name}': weight and priority must be finite numbers"
        for text in outcome_problems(rule.then, rules.column):
            yield f"rule '{rule.name}': {text}"
    if rules.default is not None:
        for text in outcome_problems(rules.default, rules.column):
            yield f"the default: {text}"
    yield from _outcome_kinds(rules)
    for claim in rules.claims:
        yield from (f"claim: {text}" for text in claim_problems(claim, rules))


def outcome_problems(outcome: Outcome, columns: dict[str, Column]) -> list[str]:
    """What is wrong with an outcome by itself."""
    if isinstance(outcome, Number):
        return [] if math.isfinite(outcome.value) else ["the outcome is not a finite number"]
    if isinstance(outcome, LinearScore):
        return linear_problems(outcome.terms, outcome.intercept, columns)
    if isinstance(outcome.value, str):
        return [] if outcome.value else ["the outcome is the empty text, which stands for none"]
    return [] if 0 <= outcome.value < 2**63 else ["labels that are numbers begin at 0"]


def _outcome_kinds(rules: RuleSet) -> Iterator[str]:
    """What does not fit between outcomes and policy."""
    kinds = {"number" if isinstance(o, Number | LinearScore) else type(o).__name__.lower() for o in rules.outcomes}
    if len(kinds) > 1:
        yield f"outcomes are of different kinds: {', '.join(sorted(kinds))}; all must be of one"
    elif kinds == {"label"} and len({type(label) for label in rules.classes}) > 1:
        yield "some labels are text and some are numbers; quote the numbers, or use numbers only"
    numeric = kinds == {"number"}
    if rules.policy is Policy.SCORE and not numeric:
        yield "the policy score adds numbers; the outcomes are labels (the policy vote adds weights of labels)"
    if rules.policy in (Policy.VOTE, Policy.COLLECT) and numeric:
        yield f"the policy {rules.policy} needs labels or actions; the outcomes are numbers"
    if rules.base and rules.policy is not Policy.VOTE:
        yield "base scores belong to the policy vote only"
    if not all(math.isfinite(score) for _, score in rules.base):
        yield "base scores must be finite numbers"
    if len(set(rules.labels)) < len(rules.labels):
        yield "a label is listed twice"
    for label in rules.classes:
        if rules.labels and label not in rules.labels:
            yield f"'{label}' is not among the labels{near(str(label), map(str, rules.labels))}"
    if rules.clamp is not None:
        low, high = rules.clamp.low, rules.clamp.high
        if not numeric:
            yield "clamp needs outcomes that are numbers"
        if not all(math.isfinite(bound) for bound in (low, high) if bound is not None):
            yield "the bounds of clamp must be finite"
        elif low is not None and high is not None and low > high:
            yield "clamp ends before it begins"


def claim_problems(claim: Claim, rules: RuleSet) -> Iterator[str]:
    """What is wrong with a claim about a set of rules."""
    if isinstance(claim, Monotone):
        column = rules.column.get(claim.column)
        if column is None:
            yield unknown_column(claim.column, rules.column)
        elif not column.type.is_ordered:
            yield f"monotone needs an ordered column; '{column.name}' is a {column.type}"
        if rules.is_numeric and claim.label is not None:
            yield "monotone with a label needs outcomes that are labels"
        if not rules.is_numeric and claim.label is None:
            yield "monotone needs to be told for which label"
        named: tuple[str | int, ...] = () if claim.label is None else (claim.label,)
    else:
        yield from condition_problems(claim.when, rules.column)
        named = () if isinstance(claim, Bound) else claim.labels
        if isinstance(claim, Bound):
            if not rules.is_numeric:
                yield "at least and at most need outcomes that are numbers"
            if claim.low is None and claim.high is None:
                yield "a bound is missing"
        elif rules.is_numeric:
            yield "forbid and require need outcomes that are labels"
    if not rules.is_numeric:
        for label in named:
            if label not in rules.classes:
                yield f"'{label}' is not among the labels{near(str(label), map(str, rules.classes))}"
