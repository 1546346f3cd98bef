"""The YAML of `modelkit pack`."""

from __future__ import annotations

from pydantic import Field

from modelkit.algorithm.config import Effort, TransformConfig
from modelkit.config.options import Objective


class PackConfig(TransformConfig):
    """Options of `modelkit pack`: the same numbers in fewer bytes."""

    effort: Effort = Field(
        "auto",
        description="size is the smallest file, load adds nothing to the time that loading takes, auto half a "
        "second at most",
    )
    objective: Objective = Field("size", description="what is preferred among candidates inside the budget")
