"""The YAML of taking channels out, for every command that does."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import Field, field_validator

from modelkit.config.options import Block
from modelkit.config.resolve import Percent

Importance = Literal[
    "auto", "reconstruction", "activation", "taylor", "l1", "l2", "gamma", "geometric_median", "random"
]
Target = Literal["channels", "parameters", "macs", "bytes", "latency"]


class Structure(Block):
    """How whole channels are chosen and what is done about the loss (channels)."""

    target: Target = Field("channels", description="what the share given for channels counts")
    importance: Importance = Field("auto", description="how much a channel matters; auto tries what the data allows")
    ranking: Literal["auto", "equal", "global", "search"] = Field(
        "auto",
        description="equal cuts the same share everywhere, global ranks all channels together, "
        "search spends the loss where it buys most",
    )
    multiple_of: int | Literal["auto"] = Field(
        "auto",
        description="channels are kept at multiples of this, for fast kernels; auto is the block of onnxruntime's "
        "convolutions here, 16 with AVX-512 and 8 without",
    )
    keep_at_least: Percent = Field(0.1, ge=0, lt=1, description="share of a layer's channels that always stays")
    threshold: float | None = Field(
        None, gt=0, description="remove channels whose importance is below this share of their layer's mean"
    )
    repair: Literal["auto", "least_squares", "bias", "none"] = Field(
        "auto", description="make up for what was cut, from data and without training"
    )
    ridge: float = Field(1e-3, ge=0, description="pull of the least squares toward the cut weights")
    rounds: int = Field(1, ge=1, le=100, description="cut in this many steps, with repair and fine-tuning between")

    @field_validator("multiple_of")
    @classmethod
    def _in_range(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= 256:
            raise ValueError(f"must be from 1 to 256, or auto, not {value}")
        return value


class Calibration(Block):
    """Inputs that data-driven methods look at."""

    samples: int = Field(512, ge=1, description="at most this many samples of the data")


class CutOptions(Protocol):
    """What a command's config says about taking channels out."""

    @property
    def include(self) -> list[str]:
        """Patterns of weight or node names to cut; empty for all."""

    @property
    def exclude(self) -> list[str]:
        """Patterns of names to leave alone."""

    @property
    def structure(self) -> Structure:
        """How channels are chosen, and what is done about the loss."""

    @property
    def calibration(self) -> Calibration:
        """Inputs that are looked at."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""
