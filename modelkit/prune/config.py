"""The YAML of `modelkit prune`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from modelkit.algorithm.config import PackableConfig
from modelkit.channels.config import Calibration, Structure
from modelkit.config.resolve import Percent
from modelkit.train.config import FineTune

Method = Literal["auto", "magnitude", "wanda", "obs"]

_PATTERN = re.compile(r"([1-9]\d{0,3})([:x])([1-9]\d{0,3})")


class PruneConfig(PackableConfig):
    """Options of `modelkit prune`: fewer numbers."""

    sparsity: Percent | None = Field(
        None, ge=0, lt=1, description="share of each layer's weights to set to zero, 50% or 0.5"
    )
    threshold: float | None = Field(None, gt=0, description="weights whose magnitude is below this become zero")
    channels: Percent | Literal["auto"] | None = Field(
        None, description="share of channels to take out, 30% or 0.3; auto finds the largest inside the budget"
    )
    method: Method = Field("auto", description="how weights are chosen; auto tries what the data allows")
    pattern: str | None = Field(
        None, description="2:4 leaves 2 of every 4 weights along the inputs; 4x1 zeroes blocks of 4 outputs x 1 input"
    )
    scope: Literal["auto", "layer", "global"] = Field(
        "auto",
        description="layer: each layer reaches the sparsity; global: all layers are ranked as one; "
        "auto tries both where there is data, else layer",
    )
    steps: int = Field(1, ge=1, le=1000, description="reach the sparsity in this many steps, on a cubic schedule")
    structure: Structure = Field(default_factory=Structure)
    calibration: Calibration = Field(default_factory=Calibration)
    finetune: FineTune = Field(default_factory=FineTune)

    @property
    def zeroes(self) -> bool:
        """Whether single weights are to become zero."""
        return any(given is not None for given in (self.sparsity, self.threshold, self.pattern))

    @property
    def cuts(self) -> bool:
        """Whether channels are to go; what zeroes single weights comes first."""
        return not self.zeroes and (self.channels is not None or self.structure.threshold is not None)

    @field_validator("channels")
    @classmethod
    def _share(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not 0 <= value < 1:
            raise ValueError(f"must be at least 0 and below 1 (100%), or auto, not {value:g}")
        return value

    @field_validator("pattern")
    @classmethod
    def _known_pattern(cls, value: str | None) -> str | None:
        if value is None:
            return None
        match = _PATTERN.fullmatch(value)
        if match is None:
            raise ValueError(f"must be N:M such as 2:4, or blocks of outputs x inputs such as 4x1, not '{value}'")
        if match[2] == ":" and int(match[1]) >= int(match[3]):
            raise ValueError(f"N:M leaves N of every M weights, so N must be below M, not '{value}'")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> PruneConfig:
        if self.channels is not None:
            given = [name for name in ("sparsity", "threshold", "pattern") if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"{given[0]} zeroes single weights and channels takes out whole channels: give one of them"
                )
        elif self.sparsity is not None and self.threshold is not None:
            raise ValueError("sparsity and threshold both say how many weights go: give one of them")
        elif self.pattern is not None and ":" in self.pattern and (self.sparsity or self.threshold):
            raise ValueError(f"the pattern {self.pattern} itself says how many weights go: leave out the other")
        elif self.pattern is not None and "x" in self.pattern and self.sparsity is None:
            raise ValueError(f"blocks of {self.pattern} need a sparsity: which share of them goes?")
        if self.threshold is not None and self.method in ("wanda", "obs"):
            raise ValueError(f"threshold is about magnitudes; method {self.method} takes a sparsity")
        return self
