"""The YAML of `modelkit pack`."""

from __future__ import annotations

from pydantic import Field

from modelkit.algorithm.config import Effort, TransformConfig
from modelkit.config.options import Objective


class PackConfig(TransformConfig):
    """Options of `modelkit pack`: the same numbers in fewer bytes."""

    effort: Effort = Field(
        "auto",
        description="size is the smallest file, load the one of them that is loaded soonest, auto adds half a second "
        "at most to the time that loading takes",
    )
    objective: Objective = Field("size", description="what is preferred among candidates inside the budget")
