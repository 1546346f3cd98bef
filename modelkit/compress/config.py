"""The YAML of `modelkit compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from modelkit.algorithm.config import Effort, PackableConfig
from modelkit.config.options import Objective
from modelkit.config.resolve import Percent
from modelkit.train.config import FineTune


class Pruning(FineTune):
    """Training while weights are taken out, for each sparsity that is tried."""

    epochs: int = Field(6, ge=0, le=100_000, description="passes over the training samples; 0 is no fine-tuning")
    patience: int = Field(
        0, ge=0, le=100_000, description="epochs without a better validation result before it stops; 0 is off"
    )


class Sharing(FineTune):
    """Training of the shared values, and of which weights take which."""

    epochs: int = Field(3, ge=0, le=100_000, description="passes over the training samples; 0 leaves k-means' values")
    patience: int = Field(
        0, ge=0, le=100_000, description="epochs without a better validation result before it stops; 0 is off"
    )


class CompressConfig(PackableConfig):
    """Options of `modelkit compress`: pruned, few shared values, packed."""

    sparsity: Percent | Literal["auto"] = Field(
        "auto",
        description="share of the weights that become zero, 95% or 0.95; auto is the largest inside the budget",
    )
    values: int | Literal["auto"] = Field(
        "auto", description="values that the weights of a layer share, zero among them; auto tries 16, 8 and 4"
    )
    biases: Literal["float16", "float32"] = Field(
        "float16", description="how biases of 64 numbers and more are stored: in 16 bits, or as they are"
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="global: all layers are ranked as one; layer: each reaches the sparsity"
    )
    trials: int = Field(9, ge=1, le=100, description="most sparsities that are tried")
    teacher: Path | None = Field(
        None, description="an ONNX file whose outputs are followed, such as a larger model; null is the model itself"
    )
    pruning: Pruning = Field(default_factory=Pruning)
    sharing: Sharing = Field(default_factory=Sharing)
    objective: Objective = Field("size", description="what is preferred among candidates inside the budget")
    pack: Effort = Field(
        "size",
        description="how weights are packed: size is the smallest file, load the one that is loaded soonest, auto "
        "adds half a second at most to the time that loading takes",
    )

    @property
    def files(self) -> list[Path]:
        """Files that are named here."""
        return [] if self.teacher is None else [self.teacher]

    @field_validator("sparsity")
    @classmethod
    def _share(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 <= value < 1:
            raise ValueError(f"must be at least 0 and below 1 (100%), or auto, not {value:g}")
        return value

    @field_validator("values")
    @classmethod
    def _few(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 3 <= value <= 255:
            raise ValueError(f"must be from 3 to 255, or auto, not {value}")
        return value
