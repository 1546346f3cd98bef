"""From the YAML of a space to its variables: choices, ranges and conditions, each value held against the family."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from modelkit.architectures.config import FAMILIES
from modelkit.config.resolve import Resolved, resolve
from modelkit.errors import ConfigError
from modelkit.files import shown
from modelkit.nas.config import NasConfig
from modelkit.nas.space import Path as Place
from modelkit.nas.space import Space, Variable

_LITERAL = {"image"}  # keys whose value is a list and no choice
_VALUES = 9  # values of a log range by default
_MOST_VALUES = 1000


def with_space(options: Resolved[NasConfig], path: Path) -> Resolved[NasConfig]:
    """Search the space, or the architecture of one network, of a file of its own; not what the config has.

    Raises:
        UsageError: It is not there.
        ConfigError: It is no YAML, or names no family.
    """
    found = resolve(_SpaceFile, yaml_path=path).value.root
    if "family" not in found:
        raise ConfigError(
            f"'{shown(path)}' is no space", [f"family is missing: there are {', '.join([*FAMILIES, 'derived'])}"]
        )
    origins = {name: origin for name, origin in options.origins.items() if name.partition(".")[0] != "space"}
    value = options.value.model_copy(update={"space": found})
    return Resolved(value, {**origins, "space": f"--space {shown(path)}"})


class _SpaceFile(pydantic.RootModel[dict[str, Any]]):
    """Any mapping: what may stand in it is for ``parse_space`` and ``modelkit.nas.written`` to say."""


def parse_space(document: Mapping[str, Any]) -> Space:
    """Make a space of what stands under the key ``space``.

    Raises:
        ConfigError: A family, an operation or another value is unknown, a range or a condition wrong; all problems
            at once.
    """
    family = document.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ConfigError("the space is wrong", [f"space.family: {_unknown(family, list(FAMILIES))}"])
    variables: list[Variable] = []
    problems: list[str] = []
    template = _walk(_spelled_out(document, problems), (), variables, problems)
    if not problems:
        problems = _conditions(template, variables)
    if not problems:
        problems = _values(family, template, variables)
    if problems:
        raise ConfigError("the space is wrong", problems)
    return Space(template, tuple(variables))


def _spelled_out(document: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """A cell's ``ops`` become choices on each edge that is not named."""
    found = dict(document)
    if found.get("family") != "cell" or "ops" not in found:
        return found
    ops, nodes = found.pop("ops"), found.get("nodes", 4)
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 2 <= nodes <= 8:
        problems.append("space.nodes: must be one number from 2 to 8 where ops are given for all edges")
        return found
    edges = {f"{begin}-{to}": ops for to in range(1, nodes) for begin in range(to)}
    found["edges"] = {**edges, **(found.get("edges") or {})}
    return found


def _walk(value: Any, path: Place, variables: list[Variable], problems: list[str]) -> Any:
    """The template of a part of the document; what varies is left out and noted."""
    if isinstance(value, Mapping):
        if path and ({"from", "to"} & value.keys() or "choices" in value):
            return _vary(value, path, variables, problems)
        found = {}
        for key, each in value.items():
            part = _walk(each, (*path, key), variables, problems)
            if part is not _VARIES:
                found[key] = part
        return found
    if isinstance(value, list) and path[-1] not in _LITERAL and not any(isinstance(v, Mapping | list) for v in value):
        return _vary({"choices": value}, path, variables, problems)
    if isinstance(value, list) and path[-1] not in _LITERAL:
        return [_walk(each, (*path, number), variables, problems) for number, each in enumerate(value)]
    return value


_VARIES = object()


def _vary(spec: Mapping[str, Any], path: Place, variables: list[Variable], problems: list[str]) -> Any:
    name = f"space.{'.'.join(map(str, path))}"
    known = {"choices", "when"} if "choices" in spec else {"from", "to", "step", "log", "values", "when"}
    unknown = [key for key in spec if key not in known]
    if unknown:
        problems.append(f"{name}: {_unknown(unknown[0], sorted(known))}")
        return _VARIES
    values, problem = _listed(spec["choices"]) if "choices" in spec else _ranged(spec)
    if problem:
        problems.append(f"{name}: {problem}")
        return _VARIES
    when = spec.get("when") or {}
    if not isinstance(when, Mapping):
        problems.append(f"{name}.when: must name other keys and their values, such as {{stages.0.op: [inverted]}}")
        return _VARIES
    allowed = {str(key): tuple(each) if isinstance(each, list) else (each,) for key, each in when.items()}
    if len(values) == 1 and not allowed:
        return values[0]
    ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    variables.append(Variable(path, tuple(sorted(values)) if ordered else tuple(values), ordered, allowed))
    return _VARIES


def _listed(values: Any) -> tuple[list[Any], str]:
    if not isinstance(values, list) or not values:
        return [], "an empty list of choices leaves nothing to choose: name one value or more"
    distinct = [value for number, value in enumerate(values) if value not in values[:number]]
    return distinct, ""


def _ranged(spec: Mapping[str, Any]) -> tuple[list[Any], str]:
    low, high, step = spec.get("from"), spec.get("to"), spec.get("step")
    numbers = (int, float)
    if (
        not isinstance(low, numbers)
        or not isinstance(high, numbers)
        or isinstance(low, bool)
        or isinstance(high, bool)
    ):
        return [], "a range needs the numbers from and to"
    if low > high:
        return [], f"from {low:g} is above to {high:g}, which leaves nothing to choose"
    if step is not None and (not isinstance(step, numbers) or isinstance(step, bool) or step <= 0):
        return [], f"step must be above 0, not {step}"
    whole = isinstance(low, int) and isinstance(high, int) and (step is None or isinstance(step, int))
    if spec.get("log"):
        if low <= 0:
            return [], "a log range must begin above 0"
        count = spec.get("values", _VALUES)
        if not isinstance(count, int) or not 2 <= count <= _MOST_VALUES:
            return [], f"values must be from 2 to {_MOST_VALUES}"
        found = [low * (high / low) ** (number / (count - 1)) for number in range(count)]
        if step is not None:
            found = [low + round((value - low) / step) * step for value in found]
    else:
        step = step if step is not None else 1 if whole else (high - low) / (_VALUES - 1) or 1
        count = math.floor((high - low) / step + 1e-9) + 1
        if count > _MOST_VALUES:
            return [], f"the range has {count} values, more than {_MOST_VALUES}: give a larger step"
        found = [low + number * step for number in range(count)]
    found = [round(value) if whole else float(f"{value:.6g}") for value in found]
    return sorted(set(found)), ""


def _conditions(template: Any, variables: list[Variable]) -> list[str]:
    """Conditions that name nothing, or a value that can never be."""
    by_name = {v.name: v for v in variables}
    problems = []
    for variable in variables:
        for name, allowed in variable.when.items():
            where = f"space.{variable.name}.when"
            if name not in by_name:
                found = _at(template, name)
                if found is None:
                    known = sorted(by_name)
                    problems.append(f"{where}: {_unknown(name, known)}")
                elif found not in allowed:
                    problems.append(f"{where}: {name} is always {found}, so this is never used")
            elif not set(allowed) & set(by_name[name].values):
                values = ", ".join(map(str, by_name[name].values))
                problems.append(f"{where}: {name} is never {allowed[0]}; it may be {values}")
    return problems


def _values(family: str, template: Mapping[str, Any], variables: list[Variable]) -> list[str]:
    """Values that the family does not know; combinations that do not fit are for the feasibility check."""
    base = Space(template, tuple(variables))
    problems: dict[str, None] = {}
    first = tuple(0 for _ in variables)
    for number, variable in enumerate([None, *variables]):
        for place in range(len(variable.values)) if variable else (0,):
            document = _forced(base, first, number - 1, place)
            try:
                FAMILIES[family].model_validate(document)
            except pydantic.ValidationError as error:
                for each in error.errors():
                    if each["loc"] and not _is_whole(each):
                        problems[_told(each)] = None
    return list(problems)


def _forced(space: Space, genome: tuple[int, ...], number: int, place: int) -> dict[str, Any]:
    """The first document with one variable's value, whether it is switched off or not."""
    plain = Space(space.template, tuple(Variable(v.path, v.values, v.ordered) for v in space.variables))
    return plain.decode(tuple(place if i == number else p for i, p in enumerate(genome)))


def _is_whole(error: Any) -> bool:
    """Whether an error is about how values go together in the whole network."""
    return error["type"] == "value_error" and len(error["loc"]) == 0


def _told(error: Any) -> str:
    where = "space." + ".".join(str(part) for part in error["loc"])
    if error["type"] == "literal_error":
        expected = [word.strip(" '\"") for word in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"{where}: {_unknown(error['input'], expected)}"
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no such key in this family"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}, not {error['input']!r}"


def _unknown(name: object, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1)
    return (
        f"'{name}' is unknown; " + (f"did you mean '{near[0]}'? " if near else "") + f"there are {', '.join(known)}"
    )


def _at(document: Any, name: str) -> Any:
    for part in name.split("."):
        if isinstance(document, list):
            document = document[int(part)] if part.isdecimal() and int(part) < len(document) else None
        else:
            document = document.get(part) if isinstance(document, Mapping) else None
    return document
