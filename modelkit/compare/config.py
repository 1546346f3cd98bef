"""The options of the commands that put models side by side: evaluate and compare."""

from __future__ import annotations

from pydantic import Field

from modelkit.config.options import Block, Budget, Measure, Regression, Synthetic
from modelkit.data.preprocess import Preprocess


class EvaluateConfig(Block):
    """Options of `modelkit evaluate`."""

    budget: Budget = Field(default_factory=Budget)
    measure: Measure = Field(default_factory=Measure)
    synthetic: Synthetic = Field(default_factory=Synthetic)
    preprocess: Preprocess | None = Field(None, description="how images become inputs, for folders of images")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of everything random")


class CompareConfig(EvaluateConfig):
    """Options of `modelkit compare`."""

    budget: Regression = Field(default_factory=Regression)
