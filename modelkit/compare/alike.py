"""Whether models can be compared: the same inputs and outputs, as far as their declarations tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelkit.errors import UsageError
from modelkit.runtime import TensorSpec

_HINT = "modelkit inspect MODEL shows the inputs and outputs of each"


def common_inputs(models: Mapping[str, Sequence[TensorSpec]]) -> list[TensorSpec]:
    """Return the inputs that all models take; a dimension that any of them fixes is fixed.

    Args:
        models: Inputs by the model's name, the reference first.

    Raises:
        UsageError: Names, types or shapes differ; tells every difference.
    """
    (first, expected), *others = models.items()
    common = {spec.name: spec for spec in expected}
    problems: list[str] = []
    for name, specs in others:
        found = {spec.name: spec for spec in specs}
        problems += [f"'{name}' has no input '{each}'" for each in common if each not in found]
        problems += [f"'{name}' also wants the input '{each}'" for each in found if each not in common]
        for each, spec in found.items():
            if each not in common:
                continue
            shape = _joined(common[each].shape, spec.shape)
            if shape is None or _family(spec) != _family(common[each]):
                problems.append(f"the input '{each}' of '{name}' is {_words(spec)}, not {_words(common[each])}")
            else:
                common[each] = replace(common[each], shape=shape)
    if problems:
        raise UsageError(f"the models do not take the same inputs as '{first}': {'; '.join(problems)}", _HINT)
    return list(common.values())


def check_outputs_match(models: Mapping[str, Sequence[TensorSpec]]) -> None:
    """Check that every model gives the outputs of the reference, by name or, as many as there are, by place.

    Args:
        models: Outputs by the model's name, the reference first.

    Raises:
        UsageError: An output is missing or has another type or shape; tells every difference.
    """
    (first, expected), *others = models.items()
    problems: list[str] = []
    for name, specs in others:
        found = {spec.name: spec for spec in specs}
        if set(found) >= {spec.name for spec in expected}:
            matched = [(spec, found[spec.name]) for spec in expected]
        elif len(specs) == len(expected):
            matched = list(zip(expected, specs, strict=True))
        else:
            problems += [f"'{name}' has no output '{spec.name}'" for spec in expected if spec.name not in found]
            continue
        problems += [
            f"the output '{own.name}' of '{name}' is {_words(own)}, not {_words(spec)}"
            for spec, own in matched
            if _joined(spec.shape, own.shape) is None or _family(spec) != _family(own)
        ]
    if problems:
        raise UsageError(f"the models do not give the same outputs as '{first}': {'; '.join(problems)}", _HINT)


def _joined(a: tuple[int | str, ...], b: tuple[int | str, ...]) -> tuple[int | str, ...] | None:
    """The shape that fits both, or None. onnxruntime shows an unknown rank as no dimensions."""
    if not a or not b:
        return a or b
    if len(a) != len(b) or any(
        isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(a, b, strict=True)
    ):
        return None
    return tuple(x if isinstance(x, int) else y for x, y in zip(a, b, strict=True))


def _family(spec: TensorSpec) -> Any:
    """Floats of any width are one family: a float16 twin takes and gives the same numbers."""
    return "float" if spec.dtype.kind == "f" or spec.dtype.name == "bfloat16" else spec.dtype


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype.name} [{', '.join(str(size) for size in spec.shape)}]"
