"""What `modelkit rules learn` can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelkit.config.options import Block

MethodName = Literal["additive", "scorecard", "list", "tree", "optimal", "ripper", "rulefit", "cover"]


class LearnConfig(Block):
    """How rules are learned."""

    max_rules: int = Field(8, ge=2, le=64, description="rules at most; the default of a list counts as one")
    max_literals: int | None = Field(None, ge=1, description="comparisons at most, in all rules together")
    policy: Literal["auto", "first", "additive"] = Field(
        "auto", description="a list of which the first rule that holds decides, rules that add up, or what is better"
    )
    methods: list[MethodName] | None = Field(None, description="learners to try; all that fit without")
    depth: int = Field(3, ge=1, le=8, description="comparisons of one rule at most (trees apart)")
    bins: int = Field(24, ge=2, le=1000, description="thresholds of a column that are tried at most")
    folds: int | None = Field(
        None, ge=2, le=20, description="parts of the cross-validation that chooses; 5, or 3 for over 1,000 rows"
    )
    tolerance: float = Field(
        0.25, ge=0, description="standard errors of accuracy that are given up for fewer comparisons"
    )
    precision: float = Field(0.95, gt=0.5, le=1, description="share of its rows that a rule of `cover` is right on")
    prune: bool = Field(False, description="take out comparisons that cost nothing on the training rows")
    seed: int = Field(0, ge=0, description="seed of everything random")
