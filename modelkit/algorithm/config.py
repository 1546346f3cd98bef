"""The options that every command which transforms a model takes; each command's config adds its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelkit.config.options import Block, Budget, Measure, Objective, Synthetic
from modelkit.data.preprocess import Preprocess


class TransformConfig(Block):
    """What the pipeline reads from any command's config."""

    include: list[str] = Field(
        default_factory=list,
        description="patterns of weight or node names to work on (empty: all), such as '*/fc*'",
    )
    exclude: list[str] = Field(default_factory=list, description="patterns of names to leave alone")
    objective: Objective = Field("balanced", description="what is preferred among candidates inside the budget")
    budget: Budget = Field(default_factory=Budget)
    measure: Measure = Field(default_factory=Measure)
    synthetic: Synthetic = Field(default_factory=Synthetic)
    preprocess: Preprocess | None = Field(None, description="how images become inputs, for folders of images")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of everything random")

    @property
    def trying_time(self) -> float | None:
        """Seconds after which no other candidate is begun; None for as long as it takes."""
        return None


Effort = Literal["auto", "size", "load"]


class PackableConfig(TransformConfig):
    """What commands take whose results may be packed."""

    pack: Literal["off"] | Effort = Field(
        "off",
        description="store the weights in fewer bytes still, without changing them: size is the smallest file, load "
        "the one that is loaded soonest, auto adds half a second at most to the time that loading takes",
    )

    @property
    def packing(self) -> Literal["off"] | Effort:
        """How the result is packed."""
        return self.pack
