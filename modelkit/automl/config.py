"""The options of `modelkit automl`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from modelkit.automl.losses import Metric
from modelkit.automl.space import Span
from modelkit.config.options import Block
from modelkit.config.resolve import Bytes, Milliseconds, Percent, Seconds

FamilyName = Literal[
    "constant", "linear", "lightgbm", "extra_trees", "svm", "mlp", "random_forest", "histogram", "neighbors"
]


class SearchOptions(Block):
    """How the space is searched."""

    method: Literal["auto", "random", "bayesian"] = Field(
        "auto",
        description="after the first guesses: auto changes the best ones a little and samples new ones, random only "
        "samples, bayesian lets Optuna's TPE suggest",
    )
    first: bool = Field(True, description="whether to begin with the first guesses of each family")
    folds: int | None = Field(
        None, ge=2, le=50, description="folds of cross-validation; told from the rows by default"
    )
    slack: float = Field(
        0.25, ge=0, description="a trial is dropped when it is worse than the best on the same folds by this share"
    )
    confirm: int = Field(
        20_000,
        ge=0,
        description="on tables of at most so many rows, the best trials are tried again on fresh folds, which choose",
    )


class EnsembleOptions(Block):
    """How the final model is put together."""

    size: int = Field(8, ge=1, le=50, description="most models in it; 1 takes the best one")
    tolerance: float = Field(
        0.25,
        ge=0,
        description="a linear model is preferred to an ensemble if it is worse by less than this many standard "
        "errors of the difference; 1 is the one-standard-error rule",
    )
    calibrate: bool = Field(True, description="whether to soften or sharpen probabilities where that helps")


class AutomlBudget(Block):
    """What is insisted on; what cannot keep it is not chosen."""

    max_size: Bytes | None = Field(None, gt=0, description="largest file, such as 500kB")
    max_latency: Milliseconds | None = Field(None, gt=0, description="longest median latency of one row, such as 1ms")


class TrialOptions(Block):
    """What one trial may use."""

    timeout: Seconds | None = Field(
        None, gt=0, description="longest time of one trial; a quarter of the time by default"
    )
    memory: Bytes | None = Field(None, gt=0, description="most memory of one trial, such as 2GB")


class AutomlConfig(Block):
    """All options; every one has a default but the target."""

    target: str | None = Field(None, description="the column to predict")
    task: Literal["auto", "classification", "regression"] = Field("auto", description="what is predicted")
    metric: Metric | None = Field(None, description="what is optimised: log_loss or rmse by default")
    weight: str | None = Field(None, description="a column that says how much each row counts")
    group: str | None = Field(None, description="a column whose equal values belong together: never split")
    time_column: str | None = Field(None, description="a column to split by: earlier rows predict later ones")
    ignore: list[str] = Field(default_factory=list, description="columns to leave out")
    time: Seconds = Field(60.0, gt=0, le=7 * 86_400, description="time of the whole run, such as 60s or 10min")
    max_trials: int | None = Field(
        None, ge=1, le=100_000, description="try exactly this many, whatever the time: the same result each time"
    )
    families: list[FamilyName] | None = Field(None, min_length=1, description="families to try; all by default")
    space: dict[str, dict[str, Span]] = Field(
        default_factory=dict, description="spans of hyper-parameters that replace those of a family"
    )
    search: SearchOptions = Field(SearchOptions(), description="how the space is searched")
    ensemble: EnsembleOptions = Field(EnsembleOptions(), description="how the final model is put together")
    held_out: Percent = Field(
        0.2, gt=0, lt=0.9, description="share of the rows that only the reported figures are from"
    )
    refit: bool = Field(True, description="whether the artifact is fitted on all rows in the end")
    budget: AutomlBudget = Field(AutomlBudget(), description="what is insisted on")
    trial: TrialOptions = Field(TrialOptions(), description="what one trial may use")
    workers: int | None = Field(None, ge=1, le=256, description="trials at a time; one for each processor by default")
    seed: int = Field(0, ge=0, description="seed of everything random")

    @model_validator(mode="after")
    def _known(self) -> AutomlConfig:
        from modelkit.automl.families.known import FAMILIES

        for family, spans in self.space.items():
            if family not in FAMILIES:
                raise ValueError(f"space.{family}: there is no such family; there are {', '.join(FAMILIES)}")
            for name in spans:
                if name not in FAMILIES[family].space:
                    there = ", ".join(FAMILIES[family].space) or "none"
                    raise ValueError(f"space.{family} has no hyper-parameter '{name}'; it has {there}")
        if (
            self.metric is not None
            and self.task != "auto"
            and self.metric.is_regression != (self.task == "regression")
        ):
            raise ValueError(f"the metric {self.metric.value} is not one of {self.task}")
        return self
