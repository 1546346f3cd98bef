"""The YAML of `modelkit nas`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from modelkit.config.options import Block
from modelkit.config.resolve import Bytes, Milliseconds, Percent, Seconds
from modelkit.nas.schema import space_schema
from modelkit.train.config import TrainOptions

Cost = Literal["latency", "bytes", "macs", "parameters"]
Goal = Literal["quality", "latency", "bytes", "macs", "parameters"]
StrategyName = Literal["random", "bayes", "evolution", "local", "nsga2"]
SpaceDocument = Annotated[dict[str, Any], WithJsonSchema(space_schema())]


class Constraints(Block):
    """What is checked before anything is trained."""

    min_parameters: int | None = Field(None, ge=0, description="fewest parameters")
    max_parameters: int | None = Field(None, ge=1, description="most parameters")
    min_macs: int | None = Field(None, ge=0, description="fewest multiply-accumulates of one sample")
    max_macs: int | None = Field(None, ge=1, description="most multiply-accumulates of one sample")
    max_bytes: Bytes | None = Field(None, gt=0, description="largest file, such as 500kB")

    @model_validator(mode="after")
    def _in_order(self) -> Constraints:
        for name in ("parameters", "macs"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} {low} is above max_{name} {high}: nothing can keep both")
        return self


class Limits(Block):
    """What is insisted on and measured; what is outside is not chosen."""

    max_latency: Milliseconds | None = Field(
        None, gt=0, description="longest median latency of one batch, such as 3ms"
    )
    max_size: Bytes | None = Field(None, gt=0, description="largest file, such as 500kB")
    min_quality: float | None = Field(None, description="least quality on the validation samples, such as 0.95")


class Fidelity(Block):
    """Fewer epochs for what does not look good."""

    method: Literal["full", "asha", "hyperband"] = Field(
        "full", description="full trains all to the end; asha and hyperband stop what is worse than others early"
    )
    eta: int = Field(
        3, ge=2, le=10, description="one in so many goes on to the next rung, with as many times the epochs"
    )
    min_epochs: int = Field(1, ge=1, le=10_000, description="epochs of the first rung")


class Training(TrainOptions):
    """How a candidate is trained."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training samples, in full")
    patience: int = Field(
        0, ge=0, le=100_000, description="epochs without a better validation result before it stops; 0 is off"
    )
    learning_rate: float | Literal["auto"] = Field(
        0.005, description="highest learning rate; auto finds it by short trials"
    )


class Derived(Block):
    """The space around a saved model."""

    widths: list[Percent] = Field(
        [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0],
        min_length=1,
        description="shares of its channels that each group may keep",
    )
    depth: bool = Field(True, description="whether repeated blocks with a plain shortcut may be left out")
    bits: list[int] = Field([32], min_length=1, description="bits that each layer's weights may have: 32, 8, 4")
    uniform: bool = Field(True, description="begin with the models whose groups all keep the same share")
    planned: bool = Field(
        True, description="then as many that cost the same, with channels taken where that does least harm"
    )
    multiple_of: int = Field(4, ge=1, le=256, description="channels are kept at multiples of this")
    repair: Literal["least_squares", "none"] = Field(
        "least_squares", description="make up for what was cut, from data and without training, before it is trained"
    )

    @model_validator(mode="after")
    def _usable(self) -> Derived:
        for share in self.widths:
            if not 0 < share <= 1:
                raise ValueError(f"widths must be above 0 and at most 1, not {share:g}")
        for bits in self.bits:
            if bits not in (32, 8, 4):
                raise ValueError(f"bits may be 32, 8 or 4, not {bits}")
        return self


class TrialOptions(Block):
    """What one trial may use."""

    timeout: Seconds | None = Field(None, gt=0, description="longest time of one trial; none by default")
    memory: Bytes | None = Field(None, gt=0, description="most memory of one trial, such as 2GB")


class Timing(Block):
    """How latency is measured."""

    seconds: float = Field(0.2, gt=0, le=60, description="time spent on timing each candidate, in seconds")
    threads: int = Field(
        1, ge=0, le=1024, description="threads that one inference may use; 0 lets onnxruntime choose"
    )
    batch: int = Field(1, ge=1, le=65536, description="samples in one timed batch where the model allows it")


class NasConfig(Block):
    """Options of `modelkit nas`."""

    space: SpaceDocument | None = Field(
        None, description="an architecture whose values may be choices [a, b] or ranges {from: 1, to: 4}"
    )
    derived: Derived = Field(Derived(), description="the space around a saved model, where one is given")
    constraints: Constraints = Field(Constraints(), description="what is checked before anything is trained")
    strategy: StrategyName = Field("evolution", description="who suggests what is tried next")
    sampler: Literal["tpe", "gp"] = Field("tpe", description="bayes: Optuna's TPE or its Gaussian process")
    warmup: int | None = Field(
        None, ge=1, description="random trials at the beginning; a fifth of all, 10 at least, by default"
    )
    fidelity: Fidelity = Field(Fidelity(), description="fewer epochs for what does not look good")
    screen: int = Field(
        1, ge=1, le=100, description="suggestions that the one with the most parameters is taken of; 1 is off"
    )
    baseline: Literal["warmup", "full", "off"] = Field(
        "warmup",
        description="what random search is judged by: the random trials of the warm-up, or as much again",
    )
    objectives: list[Goal] = Field(
        ["quality", "macs"],
        min_length=1,
        description="what the Pareto set weighs: quality, latency, bytes, macs, parameters",
    )
    limits: Limits = Field(Limits(), description="what is insisted on and measured")
    pick: Literal["quality", "knee"] = Field(
        "quality", description="which of the Pareto set is best.onnx: the best quality, or the knee"
    )
    trials: int | None = Field(
        None, ge=1, le=1_000_000, description="full trainings, or their epochs' worth; 50 by default"
    )
    time: Seconds | None = Field(None, gt=0, description="time of the search, such as 10m; all trials by default")
    workers: int = Field(1, ge=1, le=256, description="trials at a time")
    trial: TrialOptions = Field(TrialOptions(), description="what one trial may use")
    storage: str | None = Field(
        None, description="a database that several machines share: sqlite:///study.db or a PostgreSQL URL"
    )
    study: str = Field("nas", min_length=1, max_length=200, description="name of the study in the database")
    validation: Percent = Field(0.2, gt=0, lt=0.9, description="share of the samples that compares candidates")
    test: Percent = Field(0.2, gt=0, lt=0.9, description="share that only the reported figures are from")
    training: Training = Field(Training(), description="how a candidate is trained")
    timing: Timing = Field(Timing(), description="how latency is measured")
    seed: int = Field(0, ge=0, description="seed of everything random")

    @model_validator(mode="after")
    def _together(self) -> NasConfig:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave no samples to train on: their sum must be below 1")
        if "quality" not in self.objectives:
            raise ValueError("objectives must name quality")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives names something twice")
        if self.fidelity.method != "full" and self.fidelity.min_epochs >= self.training.epochs:
            raise ValueError(
                f"fidelity.min_epochs {self.fidelity.min_epochs} must be below training.epochs {self.training.epochs}"
            )
        return self
