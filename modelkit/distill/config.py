"""The YAML of `modelkit distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from modelkit.algorithm.config import PackableConfig
from modelkit.architectures.config import FAMILIES, Architecture
from modelkit.channels.config import Calibration, Structure
from modelkit.config.options import Block, Budget
from modelkit.config.resolve import Percent, Seconds
from modelkit.train.config import QuantizationAware, TrainOptions

Method = Literal["logits", "dist", "dkd", "features", "attention"]


class Training(TrainOptions):
    """How a student is trained."""

    epochs: int = Field(20, ge=0, le=100_000, description="passes over the training samples")
    weight_decay: float = Field(0.0001, ge=0, le=10, description="decay of weights, decoupled for adamw; 0 is off")


class Rounding(QuantizationAware):
    """Training with the rounding in it, of a student that becomes one of integers."""

    alpha: Percent = Field(0.0, ge=0, le=1, description="share of the labels in the loss beside the teacher")


class Dist(Block):
    """Weights of the method dist."""

    between: float = Field(1.0, ge=0, description="weight of the relations between the classes of a sample")
    within: float = Field(1.0, ge=0, description="weight of the relations between samples for a class")


class Dkd(Block):
    """Weights of the method dkd."""

    target: float = Field(1.0, ge=0, description="weight of the target class against all others")
    others: float = Field(8.0, ge=0, description="weight of how the other classes compare with one another")


class Features(Block):
    """Tensors inside that follow the teacher's (methods features and attention)."""

    pairs: dict[str, str] = Field(
        default_factory=dict,
        description="names in the student with those in the teacher; else they are found",
    )
    most: int = Field(3, ge=1, le=100, description="pairs that are found by themselves at most")
    weight: float = Field(1.0, gt=0, description="weight of the pairs' loss beside that of the outputs")


class DistillConfig(PackableConfig):
    """Options of `modelkit distill`: a small student learns from a large teacher."""

    method: Method = Field("logits", description="what of the teacher the student follows")
    teachers: list[Path] = Field(
        default_factory=list, description="ONNX files of further teachers; the student follows the mean of all"
    )
    weights: list[float] | None = Field(
        None, description="weights of the teachers in the mean, that of the model itself first; equal by default"
    )
    student: str | Architecture | None = Field(
        None,
        description="an ONNX file, trained or not; a family (mlp, cnn, transformer), an architecture's YAML file, or "
        "one in full, {family: cnn, ...}; by default the teacher with fewer channels",
    )
    ratio: Percent | Literal["auto"] = Field(
        "auto",
        description="share of the teacher that a derived student keeps, 25% or 0.25; 1 is self-distillation; auto is "
        "a half, or inside a budget the smallest that holds",
    )
    baseline: bool = Field(
        True, description="also train the student without the teacher, to see whether distillation helped"
    )
    allow_larger: bool = Field(False, description="take a student with more parameters than the teacher")
    assistant: Percent | Literal["auto"] | None = Field(
        None,
        description="share of the teacher that a network between the two keeps, which learns first and teaches the "
        "student; auto is halfway by ratio",
    )
    unlabelled: Path | None = Field(
        None, description="further inputs without labels, in any data format: the teacher answers for them"
    )
    bits: int | None = Field(
        None,
        ge=2,
        le=8,
        description="also store the student in integers of so many bits, trained with the rounding",
    )
    qat: Rounding = Field(default_factory=Rounding)
    numbers: Literal["auto", "mse", "huber", "cosine"] = Field(
        "auto", description="how outputs that are no class scores follow; cosine is for embeddings"
    )
    dist: Dist = Field(default_factory=Dist)
    dkd: Dkd = Field(default_factory=Dkd)
    features: Features = Field(default_factory=Features)
    time: Seconds | None = Field(
        None, gt=0, description="longest time for all training together, 90s, 5min; the best until then is written"
    )
    structure: Structure = Field(default_factory=Structure)
    calibration: Calibration = Field(default_factory=Calibration)
    training: Training = Field(default_factory=Training)

    @property
    def files(self) -> list[Path]:
        """Files that are named here."""
        named = isinstance(self.student, str) and self.student not in FAMILIES
        given = [Path(str(self.student))] if named else []
        return [*given, *self.teachers, *([] if self.unlabelled is None else [self.unlabelled])]

    @property
    def searches(self) -> bool:
        """Whether the size of the student follows from the budget."""
        return self.student is None and self.ratio == "auto" and self.budget != Budget()

    @field_validator("ratio", "assistant")
    @classmethod
    def _share(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError(f"must be above 0 and at most 1 (100%), or auto, not {value:g}")
        return value

    @model_validator(mode="after")
    def _one_student(self) -> DistillConfig:
        if self.student is not None and self.ratio != "auto":
            raise ValueError("ratio says how a student is cut out of the teacher, and student names one: give one")
        if self.assistant == "auto" and self.student is not None:
            raise ValueError("assistant: auto goes by the ratio of a derived student: give its share, such as 50%")
        if self.time is not None and self.training.time_limit is not None:
            raise ValueError("time and training.time_limit both end the training: give one")
        if self.weights is not None and len(self.weights) != len(self.teachers) + 1:
            count = len(self.teachers) + 1
            raise ValueError(f"weights has {len(self.weights)} numbers, and there are {count} teachers: give {count}")
        if self.weights is not None and not all(0 < weight < 1e6 for weight in self.weights):
            raise ValueError("weights of teachers are above 0")
        return self
