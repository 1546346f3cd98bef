"""The JSON form of a rule set, version ``modelkit.rules/1``: conditions as trees, every key written down.

Doubles are written with the shortest digits that are read back to the same bits. Dates are days, datetimes seconds
since 1970-01-01 (UTC), booleans 0 and 1, as in `modelkit.rules.columns`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from modelkit.rules.columns import ColumnType
from modelkit.rules.conditions import Operator
from modelkit.rules.model import Policy

ValueJson = str | FiniteFloat
LabelJson = str | int


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CompareJson(_Block):
    """column op value; false where the value is missing."""

    kind: Literal["compare"] = "compare"
    column: str
    op: Operator
    value: ValueJson


class BetweenJson(_Block):
    """low <= column <= high."""

    kind: Literal["between"] = "between"
    column: str
    low: FiniteFloat
    high: FiniteFloat


class InJson(_Block):
    """The column's value is one of these; negated: it is there and none of these."""

    kind: Literal["in"] = "in"
    column: str
    values: tuple[ValueJson, ...]
    negated: bool


class MissingJson(_Block):
    """The column has no value."""

    kind: Literal["missing"] = "missing"
    column: str


class TermJson(_Block):
    """A column and what it is multiplied with."""

    column: str
    coefficient: FiniteFloat


class LinearJson(_Block):
    """The sum of the terms, added from left to right in doubles, op bound; false where any value is missing."""

    kind: Literal["linear"] = "linear"
    terms: tuple[TermJson, ...]
    op: Operator
    bound: FiniteFloat


class AllJson(_Block):
    """All of them hold; none at all always holds."""

    kind: Literal["all"] = "all"
    terms: tuple[ConditionJson, ...]


class AnyJson(_Block):
    """At least one of them holds; none at all never holds."""

    kind: Literal["any"] = "any"
    terms: tuple[ConditionJson, ...]


class NotJson(_Block):
    """It does not hold."""

    kind: Literal["not"] = "not"
    term: ConditionJson


ConditionJson = Annotated[
    CompareJson | BetweenJson | InJson | MissingJson | LinearJson | AllJson | AnyJson | NotJson,
    Field(discriminator="kind"),
]


class LabelOutcome(_Block):
    """A class: text or a whole number."""

    kind: Literal["label"] = "label"
    value: LabelJson


class ActionOutcome(_Block):
    """The name of something to do."""

    kind: Literal["action"] = "action"
    value: str


class NumberOutcome(_Block):
    """A number."""

    kind: Literal["number"] = "number"
    value: FiniteFloat


class LinearOutcome(_Block):
    """intercept plus the terms, added from left to right in doubles."""

    kind: Literal["linear"] = "linear"
    intercept: FiniteFloat
    terms: tuple[TermJson, ...]


OutcomeJson = Annotated[LabelOutcome | ActionOutcome | NumberOutcome | LinearOutcome, Field(discriminator="kind")]


class ColumnJson(_Block):
    """A column of the input."""

    name: str
    type: ColumnType
    low: FiniteFloat | None = Field(description="smallest valid value")
    high: FiniteFloat | None = Field(description="largest valid value")
    values: tuple[str, ...] = Field(description="categories that may occur")
    other: bool = Field(description="whether other categories may occur")
    missing: bool = Field(description="whether values may be missing")
    unit: str
    description: str


class RuleJson(_Block):
    """If the condition holds, then the outcome."""

    name: str
    when: ConditionJson
    then: OutcomeJson
    priority: FiniteFloat
    weight: FiniteFloat
    description: str


class ClampJson(_Block):
    """Bounds that a prediction is kept in."""

    low: FiniteFloat | None
    high: FiniteFloat | None


class LabelsClaim(_Block):
    """Where the condition holds, the label is none (forbid) or one (require) of these."""

    kind: Literal["forbid", "require"]
    labels: tuple[LabelJson, ...]
    when: ConditionJson


class BoundClaim(_Block):
    """Where the condition holds, the prediction is within these bounds."""

    kind: Literal["bound"] = "bound"
    low: FiniteFloat | None
    high: FiniteFloat | None
    when: ConditionJson


class MonotoneClaim(_Block):
    """As the column rises and all else stays, the result does not turn back."""

    kind: Literal["monotone"] = "monotone"
    column: str
    increasing: bool
    label: LabelJson | None


ClaimJson = Annotated[LabelsClaim | BoundClaim | MonotoneClaim, Field(discriminator="kind")]


class BaseJson(_Block):
    """A score that a label has before any vote."""

    label: LabelJson
    score: FiniteFloat


class RulesJson(_Block):
    """A rule set: typed columns, rules, and the policy that makes one result of them."""

    version: Literal["modelkit.rules/1"] = Field(alias="schema", description="name and version of this form")
    name: str
    description: str
    columns: tuple[ColumnJson, ...] = Field(min_length=1)
    policy: Policy
    default: OutcomeJson | None
    labels: tuple[LabelJson, ...] = Field(
        description="all labels in the order of the scores; empty for that of rules"
    )
    base: tuple[BaseJson, ...]
    clamp: ClampJson | None
    rules: tuple[RuleJson, ...] = Field(min_length=1)
    claims: tuple[ClaimJson, ...]
