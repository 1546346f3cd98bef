"""A recipe and the model that it is run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.checkpoint.loading import Loading
from modelkit.config.resolve import Resolved, resolve
from modelkit.recipe.config import RUN, RecipeConfig, step_options
from modelkit.transform.commands import COMMANDS
from modelkit.transform.job import HIDDEN, Job

_CACHE = Path(HIDDEN) / "cache"


@dataclass(frozen=True)
class RecipeJob(Job):
    """One model to run a recipe on; its options are a ``RecipeConfig``.

    Attributes:
        cache: Folder where what the steps make is kept for later runs; None to keep nothing.
    """

    cache: Path | None = None


def recipe_job(
    model: str | Path,
    recipe: Resolved[RecipeConfig] | Mapping[str, Any] | str | Path,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    force: bool = False,
    html: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    cache: str | Path | bool = True,
) -> RecipeJob:
    """Describe a run of a recipe without starting it.

    Args:
        model: An ONNX file or a checkpoint.
        recipe: A YAML file, its values, or already resolved.
        output: Where the artifact goes; by default beside the model.
        data: Inputs for all steps that name none of their own.
        test: Labelled inputs for the final figures only.
        force: Whether to overwrite an artifact that exists.
        html: Whether to write the report as a page for the browser too.
        loading: For a checkpoint its architecture, inputs and trust.
        cache: Folder for what the steps make; True for a hidden one beside the output, False for none.

    Raises:
        ConfigError: The recipe is wrong.
        UsageError: There is no such file.
    """
    source, resolved = Path(model), read_recipe(recipe)
    target = Path(output) if output is not None else source.with_name(recipe_artifact(source, resolved))
    return RecipeJob(
        command=RUN,
        model=source,
        output=target,
        options=resolved,
        safe=False,
        data=None if data is None else Path(data),
        test=None if test is None else Path(test),
        preprocess=resolved.value.preprocess,
        force=force,
        html=html,
        loading=loading,
        cache=default_cache(target.parent) if cache is True else None if cache is False else Path(cache),
    )


def read_recipe(recipe: Resolved[RecipeConfig] | Mapping[str, Any] | str | Path) -> Resolved[RecipeConfig]:
    """Turn whatever says what to do into a recipe.

    Raises:
        ConfigError: It is wrong.
        UsageError: There is no such file.
    """
    if isinstance(recipe, Resolved):
        return recipe
    if isinstance(recipe, Mapping):
        return resolve(RecipeConfig, flags={key: (value, key) for key, value in recipe.items()})
    return resolve(RecipeConfig, yaml_path=Path(recipe))


def recipe_artifact(model: Path, recipe: Resolved[RecipeConfig]) -> str:
    """The artifact's name beside its model, each step's word in it: ``model.pruned.int8.onnx``."""
    words = []
    for index, step in enumerate(recipe.value.steps):
        words.append(COMMANDS[step.command].suffix(step_options(recipe, index).value))
    return ".".join([model.stem, *dict.fromkeys(words), "onnx"])


def step_inputs(recipe: Resolved[RecipeConfig]) -> dict[str, Path]:
    """The data that steps name themselves, by the step's number."""
    return {f"step {n}": step.data for n, step in enumerate(recipe.value.steps, 1) if step.data is not None}


def default_cache(folder: Path) -> Path:
    """Where a folder of results keeps what the steps of recipes made."""
    return folder / _CACHE
