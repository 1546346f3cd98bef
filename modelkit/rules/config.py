"""The schema of a rules file: what `modelkit schema rules` prints and editors check."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from modelkit.rules.columns import ColumnType
from modelkit.rules.model import Policy

Text = str | list[Any] | dict[str, Any]
"""A condition: text of the language, a list (a triple, or all of several), or a mapping any of / all of / not."""

LabelValue = str | int


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ColumnSpec(_Block):
    """A column, with what is known of its values."""

    type: ColumnType = Field(description="what it holds")
    unit: str = Field("", description="unit of measure, for people")
    values: list[str] = Field(default_factory=list, description="the categories that may occur")
    range: list[FiniteFloat | str | None] | None = Field(
        None, min_length=2, max_length=2, description="smallest and largest valid value, null where there is none"
    )
    other: bool = Field(False, description="whether categories may occur that are not declared")
    missing: bool = Field(False, description="whether values may be missing")
    description: str = Field("", description="what it is, for people")


class TermSpec(_Block):
    """A term of a linear score."""

    column: str = Field(description="a column that holds numbers")
    coefficient: FiniteFloat = Field(description="what its value is multiplied with")


class LinearSpec(_Block):
    """A number that is computed from the row."""

    intercept: FiniteFloat = Field(0.0, description="what the sum begins with")
    linear: list[TermSpec] | dict[str, FiniteFloat] = Field(
        description="columns and coefficients, added in this order"
    )


OutcomeSpec = str | int | FiniteFloat | LinearSpec


class RuleSpec(_Block):
    """One rule."""

    name: str | None = Field(None, description="name of the rule, unique; rule 1, rule 2, ... without")
    description: str = Field("", description="for people")
    when: Text = Field(description="the condition")
    then: OutcomeSpec = Field(description="a label, an action, a number or a linear score")
    priority: FiniteFloat = Field(0.0, description="larger comes first, with the policy priority")
    weight: FiniteFloat = Field(1.0, description="what its vote counts, or its confidence")


class BaseSpec(_Block):
    """A score that a label has before any vote."""

    label: LabelValue = Field(description="the label")
    score: FiniteFloat = Field(description="its score")


class ConstraintSpec(_Block):
    """One of clamp, forbid, require, monotone, or at least and at most."""

    clamp: list[FiniteFloat | None] | None = Field(
        None, min_length=2, max_length=2, description="bounds that a prediction is kept in; null for none"
    )
    forbid: LabelValue | list[LabelValue] | None = Field(None, description="labels that are never given")
    require: LabelValue | list[LabelValue] | None = Field(None, description="labels of which one is always given")
    monotone: str | None = Field(None, description="a column; the result does not turn back as it rises")
    direction: Literal["rises", "falls"] = Field("rises", description="which way the result goes with the column")
    label: LabelValue | None = Field(None, description="the label that monotone is about")
    at_least: FiniteFloat | None = Field(None, alias="at least", description="smallest prediction")
    at_most: FiniteFloat | None = Field(None, alias="at most", description="largest prediction")
    when: Text | None = Field(None, description="where the claim holds; everywhere without")

    @model_validator(mode="after")
    def _one_of(self) -> ConstraintSpec:
        bounds = self.at_least is not None or self.at_most is not None
        given = [name for name in ("clamp", "forbid", "require", "monotone") if getattr(self, name) is not None]
        if len(given) + bounds != 1:
            raise ValueError("one of clamp, forbid, require, monotone, or at least and at most, is expected")
        if given in (["clamp"], ["monotone"]) and self.when is not None:
            raise ValueError(f"{given[0]} holds everywhere; leave 'when' out")
        if given != ["monotone"] and (self.label is not None or self.direction != "rises"):
            raise ValueError("label and direction belong to monotone")
        return self


class RulesFile(_Block):
    """A rule set: columns, rules, and how one result is made of them."""

    name: str | None = Field(None, description="name of the set; the file's name without")
    description: str = Field("", description="for people")
    columns: dict[str, ColumnType | ColumnSpec] = Field(
        description="the columns by name: a type, or more", min_length=1
    )
    policy: Policy = Field(Policy.FIRST, description="which of the rules that fire decides")
    outcome: Literal["label", "action", "number"] | None = Field(
        None,
        description="what outcomes are; without it numbers with the policy score or where one is no whole number, "
        "else labels",
    )
    labels: list[LabelValue] = Field(default_factory=list, description="all labels in the order of the scores")
    base: list[BaseSpec] = Field(default_factory=list, description="scores before any vote, with the policy vote")
    default: OutcomeSpec | None = Field(None, description="the outcome where no rule fires")
    rules: list[RuleSpec] = Field(description="the rules, in order", min_length=1)
    constraints: list[ConstraintSpec] = Field(default_factory=list, description="clamp, and claims to be proved")
