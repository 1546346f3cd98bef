"""The YAML of `modelkit distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from modelkit.channels.config import Calibration, Structure
from modelkit.config import Percent, Seconds
from modelkit.train.config import TrainOptions
from modelkit.transform_config import TransformConfig

Method = Literal["logits", "dist", "dkd", "features", "attention"]


class Training(TrainOptions):
    """How a student is trained."""

    epochs: int = Field(20, ge=0, le=100_000, description="passes over the training samples")
    weight_decay: float = Field(0.0001, ge=0, le=10, description="decay of weights, decoupled for adamw; 0 is off")


class DistillConfig(TransformConfig):
    """Options of `modelkit distill`: a small student learns from a large teacher."""

    method: Method = Field("logits", description="what of the teacher the student follows")
    student: str | None = Field(
        None, description="an ONNX file, trained or not; by default the teacher with fewer channels"
    )
    ratio: Percent = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the teacher that a derived student keeps, 25% or 0.25; 1 is self-distillation",
    )
    baseline: bool = Field(
        True, description="also train the student without the teacher, to see whether distillation helped"
    )
    allow_larger: bool = Field(False, description="take a student with more parameters than the teacher")
    time: Seconds | None = Field(
        None, gt=0, description="longest time for all training together, 90s, 5min; the best until then is written"
    )
    structure: Structure = Field(default_factory=Structure)
    calibration: Calibration = Field(default_factory=Calibration)
    training: Training = Field(default_factory=Training)

    @property
    def files(self) -> list[Path]:
        """Files that are named here."""
        return [] if self.student is None else [Path(self.student)]

    @model_validator(mode="after")
    def _one_student(self) -> DistillConfig:
        if self.student is not None and "ratio" in self.model_fields_set:
            raise ValueError("ratio says how a student is cut out of the teacher, and student names one: give one")
        if self.time is not None and self.training.time_limit is not None:
            raise ValueError("time and training.time_limit both end the training: give one")
        return self
