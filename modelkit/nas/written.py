"""A space around a saved model that is written out, such as the YAML of one candidate: what is not named stays."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from modelkit.errors import ConfigError, UsageError
from modelkit.nas.space import Space, Variable

FAMILY = "derived"
_KEYS = ("family", "model", "drop", "widths", "bits")
_BITS = (4, 8, 32)


@dataclass(frozen=True)
class Parts:
    """What of a model may differ.

    Attributes:
        model: Its identity.
        blocks: Names of the blocks that may be left out.
        groups: Name of each group of channels -> the numbers of channels that it may keep, ascending.
        weights: Names of the weights that may have fewer bits.
        inside: Name of each block -> the groups and weights that go with it.
    """

    model: str
    blocks: Collection[str]
    groups: Mapping[str, tuple[int, ...]]
    weights: Collection[str]
    inside: Mapping[str, Collection[str]]


def is_around(document: Mapping[str, Any] | None) -> bool:
    """Whether a space is one around a saved model."""
    return document is not None and document.get("family") == FAMILY


def written_space(document: Mapping[str, Any], parts: Parts) -> Space:
    """Make a space of ``family: derived``.

    Args:
        document: Under ``drop``, ``widths`` and ``bits`` names with a value, or a list of values to choose from.
        parts: What of the model may differ.

    Raises:
        UsageError: It was written for another model.
        ConfigError: A name or a value is not one of this model's; all problems at once.
    """
    was = document.get("model", parts.model)
    if was != parts.model:
        raise UsageError(
            f"the space is one around another model: its hash begins {was}, that of this one {parts.model}",
            "give the model that it was derived from",
        )
    problems = [f"space.{key}: {_unknown(key, _KEYS)}" for key in document if key not in _KEYS]
    template: dict[str, Any] = {"family": FAMILY, "model": parts.model}
    variables: list[Variable] = []
    for section, names in (("drop", parts.blocks), ("widths", parts.groups), ("bits", parts.weights)):
        given = document.get(section) or {}
        if not isinstance(given, Mapping):
            problems.append(f"space.{section}: must name parts of the model and their values")
            continue
        for name, value in given.items():
            values = tuple(dict.fromkeys(value if isinstance(value, list) else [value]))
            problem = _problem(section, name, values, names, parts)
            if problem:
                problems.append(f"space.{section}.{name}: {problem}")
            elif len(values) == 1:
                template.setdefault(section, {})[name] = values[0]
            else:
                ordered = section != "drop"
                variables.append(Variable((section, name), tuple(sorted(values)), ordered, _when(name, parts)))
    if not problems:
        variables, problems = _settled(template, variables, parts)
    if problems:
        raise ConfigError("the space is wrong", problems)
    return Space(template, tuple(variables))


def _problem(section: str, name: str, values: tuple[Any, ...], names: Collection[str], parts: Parts) -> str:
    if name not in names:
        return f"this model has no such part; {_unknown(name, names)}"
    if not values:
        return "an empty list of choices leaves nothing to choose: name one value or more"
    for value in values:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if section == "drop" and not isinstance(value, bool):
            return f"must be true or false, not {value!r}"
        if section == "bits" and (not whole or value not in _BITS):
            return f"bits may be 32, 8 or 4, not {value!r}"
        if section == "widths" and (not whole or value not in parts.groups[name]):
            allowed = parts.groups[name]
            near = min(allowed, key=lambda count: abs(count - value)) if whole else allowed[-1]
            return f"the group may keep {allowed[0]} to {allowed[-1]} channels, not {value!r}; the nearest is {near}"
    return ""


def _settled(template: dict[str, Any], variables: list[Variable], parts: Parts) -> tuple[list[Variable], list[str]]:
    """Conditions on blocks of which it is known whether they are there are not needed, or never hold."""
    fixed = template.get("drop", {})
    gone = {name: block for block, is_gone in fixed.items() if is_gone for name in parts.inside[block]}
    problems = [
        f"space.{section}.{name}: it lies in the block {gone[name]}, which is left out"
        for section in ("widths", "bits")
        for name in [*template.get(section, {}), *(v.path[1] for v in variables if v.path[0] == section)]
        if name in gone
    ]
    open_blocks = {f"drop.{v.path[1]}" for v in variables if v.path[0] == "drop"}
    settled = [
        Variable(v.path, v.values, v.ordered, {name: held for name, held in v.when.items() if name in open_blocks})
        for v in variables
    ]
    return settled, problems


def _when(name: str, parts: Parts) -> dict[str, tuple[Any, ...]]:
    return {f"drop.{block}": (False,) for block in parts.blocks if name in parts.inside[block]}


def _unknown(name: object, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1)
    listed = ", ".join(list(known)[:12]) or "none"
    return f"'{name}' is unknown; " + (f"did you mean '{near[0]}'? " if near else "") + f"there are {listed}"
