"""Blocks of configuration that several commands share: budget, measuring, calibration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from modelkit.config.resolve import Bytes, Factor, Milliseconds, Percent

Objective = Literal["balanced", "size", "latency", "quality"]


class Block(BaseModel):
    """A block of options: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(Block):
    """What may be given up and what is insisted on; a result outside it is exit code 1."""

    max_drop: Percent | None = Field(
        None,
        ge=0,
        le=1,
        description="largest loss of quality (accuracy, absolute) allowed, 0.5% or 0.005; "
        "without labels, the largest share of changed predictions",
    )
    min_ratio: Factor | None = Field(
        None, gt=0, description="how many times smaller the file must become at least (original / artifact), 3.5x"
    )
    max_size: Bytes | None = Field(None, gt=0, description="most bytes of the artifact, 100kB or a number of bytes")
    min_speedup: Factor | None = Field(
        None, gt=0, description="how many times faster it must run at least (original / artifact), 2x"
    )
    max_latency: Milliseconds | None = Field(
        None, gt=0, description="longest median latency of one batch, 5ms or a number of milliseconds"
    )


class Regression(Budget):
    """What a model may be worse by than the one that it is to replace; beyond it is exit code 1."""

    min_agreement: Percent | None = Field(
        None, ge=0, le=1, description="smallest share of predictions that must stay the same, 99% or 0.99"
    )
    min_sqnr: float | None = Field(
        None, ge=-200, le=400, description="least signal-to-noise ratio of the outputs, in decibels"
    )
    max_size_growth: Percent | None = Field(
        None, ge=-1, description="how much larger the files may be, 5% or 0.05; -50% insists on half the size"
    )
    max_slowdown: Percent | None = Field(
        None,
        ge=-1,
        description="how much longer it may take, 10% or 0.1; missed only where the whole 95 % interval is beyond",
    )


class Measure(Block):
    """How latency is measured."""

    seconds: float = Field(2.0, gt=0, le=600, description="time spent on timing each candidate, in seconds")
    threads: int = Field(
        1, ge=0, le=1024, description="threads that one inference may use; 0 lets onnxruntime choose"
    )
    batch: int = Field(1, ge=1, le=65536, description="samples in one timed batch where the model allows it")
    provider: str = Field("CPUExecutionProvider", description="onnxruntime execution provider that runs the model")


class Synthetic(Block):
    """Made-up inputs, used where no data is given."""

    samples: int = Field(64, ge=1, le=100_000, description="how many made-up samples")
    dims: dict[str, int] = Field(
        default_factory=dict, description="sizes of symbolic dimensions, such as {sequence: 128}"
    )
