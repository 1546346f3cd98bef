"""What `modelkit rules extract` can be told."""

from __future__ import annotations

from pydantic import Field

from modelkit.rules.learn.config import LearnConfig, MethodName

_METHODS: tuple[MethodName, ...] = ("additive", "scorecard", "tree", "list", "optimal", "sums")


class ExtractConfig(LearnConfig):
    """How a teacher is imitated."""

    methods: list[MethodName] | None = Field(
        default_factory=lambda: list(_METHODS), description="learners to try; all that fit for null"
    )
    repeats: int | None = Field(1, ge=1, le=20, description="cross-validations with other parts")
    tolerance: float = Field(0.0, ge=0, description="standard errors that may be given up for fewer comparisons")
    bins: int = Field(48, ge=2, le=1000, description="thresholds of a column that are tried at most")
    queries: float = Field(4.0, ge=0, le=100, description="made-up rows to ask the teacher about, for each row")
    most_rows: int = Field(6000, ge=100, description="rows to learn from at most, made-up ones included")
    held_out: float = Field(0.25, gt=0, lt=1, description="share of the rows kept for the final figures")
    teacher_splits: bool = Field(True, description="use the thresholds of a teacher that is a tree ensemble")
