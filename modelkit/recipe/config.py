"""The YAML of `modelkit run`: a list of steps, each a command with its options, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from modelkit.algorithm.config import TransformConfig
from modelkit.config.options import Block, Budget, Measure, Synthetic
from modelkit.config.resolve import Resolved
from modelkit.data.preprocess import Preprocess
from modelkit.transform.commands import COMMANDS

RUN = "run"
_OWN = ("command", "data", "optional")
_SHARED = ("measure", "synthetic", "preprocess", "seed")


def _step(command: str, schema: type[TransformConfig]) -> type[TransformConfig]:
    """The options of a command as a step takes them: its own, and what makes a step of it."""
    if clash := sorted(schema.model_fields.keys() & set(_OWN)):
        raise TypeError(f"a step of a recipe has a meaning of its own for {', '.join(clash)} of {command}")
    fields: dict[str, Any] = {
        "command": (Literal[command], Field(description="which command the step does")),
        "data": (
            Path | None,
            Field(None, description="inputs for this step, in place of --data: a path as the command line takes it"),
        ),
        "optional": (bool, Field(False, description="whether the step is left out where it has nothing to do")),
    }
    made = create_model(
        f"{command.capitalize()}Step",
        __base__=schema,
        __module__=__name__,
        __doc__=f"A step that does `modelkit {command}`.",
        **fields,
    )
    assert issubclass(made, TransformConfig)
    return made


if TYPE_CHECKING:

    class Step(TransformConfig):
        """A step of any command."""

        command: str
        data: Path | None
        optional: bool

else:
    _STEPS = [_step(name, each.schema) for name, each in COMMANDS.items()]
    # Workers are sent options, and look for their types here.
    globals().update({each.__name__: each for each in _STEPS})
    Step = Annotated[reduce(or_, _STEPS), Field(discriminator="command")]


class RecipeConfig(Block):
    """A recipe: steps that are done in order, each on what the one before it made."""

    steps: list[Step] = Field(
        min_length=1, max_length=100, description="the commands, in order, each with its options"
    )
    budget: Budget = Field(default_factory=Budget)
    measure: Measure = Field(default_factory=Measure)
    synthetic: Synthetic = Field(default_factory=Synthetic)
    preprocess: Preprocess | None = Field(None, description="how images become inputs, for folders of images")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of everything random, in all steps")


def step_options(recipe: Resolved[RecipeConfig], index: int) -> Resolved[TransformConfig]:
    """The options of one step, as its command takes them.

    ``measure``, ``synthetic``, ``preprocess`` and ``seed`` are the recipe's where the step says nothing.

    Args:
        recipe: The recipe.
        index: Which step, from 0.
    """
    step = recipe.value.steps[index]
    above = recipe.value.model_dump(exclude_unset=True, include=set(_SHARED))
    given = step.model_dump(exclude_unset=True, exclude=set(_OWN))
    value = COMMANDS[step.command].schema.model_validate(_over(above, given))
    return Resolved(value, _origins(recipe.origins, f"steps.{index}."))


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, key by key."""
    found = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = _over(found[key], value) if both else value
    return found


def _origins(recipe: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Where each value of a step came from: the step's own keys, or the recipe's for what is shared."""
    found = {key.removeprefix(prefix): origin for key, origin in recipe.items() if key.startswith(prefix)}
    found = {key: origin for key, origin in found.items() if key not in _OWN}
    for key, origin in recipe.items():
        if key.partition(".")[0] in _SHARED and found.get(key, "default") == "default":
            found[key] = origin
    # A block that the step leaves out whole is one default there, and many values here.
    return {key: origin for key, origin in found.items() if not any(each.startswith(f"{key}.") for each in found)}
