"""A student's inputs and outputs are brought to those of the teacher, whose place it is to take."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.names import make_unique


def match(student: ir.Model, teacher: ir.Model) -> list[Decision]:
    """Give a student's inputs and outputs the teacher's names, in place: by name, or by place where names differ.

    Args:
        student: The student.
        teacher: The teacher; it stays as it is.

    Returns:
        A decision for each name that changed.

    Raises:
        ModelError: They cannot be matched; lists the names and shapes of both.
    """
    decisions = _match("inputs", _inputs(student), _inputs(teacher))
    decisions += _match("outputs", list(student.graph.outputs), list(teacher.graph.outputs))
    # What a value inside was called may be what an output is called now.
    decisions += make_unique(student)
    theirs = {str(value.name): value for value in _inputs(teacher)}
    for value in _inputs(student):
        own, other = _batch(value), _batch(theirs[str(value.name)])
        if isinstance(own, int) and own != other:
            raise ModelError(
                f"the student's input '{value.name}' takes {own} samples at a time, the teacher's {_any(other)}",
                "export the student with a symbolic batch dimension",
            )
    return decisions


def _batch(value: ir.Value) -> object:
    return value.shape[0] if value.shape is not None and len(value.shape) else None


def _any(batch: object) -> str:
    return str(batch) if isinstance(batch, int) else "any number"


def _match(kind: str, own: Sequence[ir.Value], theirs: Sequence[ir.Value]) -> list[Decision]:
    wanted = {str(value.name): value for value in theirs}
    named = {str(value.name): value for value in own}
    if named.keys() == wanted.keys():
        pairs = [(value, wanted[name]) for name, value in named.items()]
    elif len(own) == len(theirs):
        pairs = list(zip(own, theirs, strict=True))
    else:
        raise _differ(kind, own, theirs)
    if not all(_fits(one, other) for one, other in pairs):
        raise _differ(kind, own, theirs)
    decisions = []
    for value, other in pairs:
        if value.name != other.name:
            reason = f"named as the teacher's {kind[:-1]}, in whose place it stands"
            decisions.append(Decision(str(other.name), "renamed", reason, {"before": str(value.name)}))
    # All at once: a name may be given that another value still has.
    for number, (value, _) in enumerate(pairs):
        value.name = f"modelkit matched {number}"
    for value, other in pairs:
        value.name = other.name
    return decisions


def _fits(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values may have the same shape and are the same kind of number."""
    kinds = [value.dtype is None or value.dtype.is_floating_point() for value in (one, other)]
    if kinds[0] != kinds[1] or one.shape is None or other.shape is None:
        return kinds[0] == kinds[1]
    if len(one.shape) != len(other.shape):
        return False
    sizes = zip(list(one.shape)[1:], list(other.shape)[1:], strict=True)
    return all(a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int))


def _differ(kind: str, own: Sequence[ir.Value], theirs: Sequence[ir.Value]) -> ModelError:
    return ModelError(
        f"the student's {kind} are {_list(own)}, the teacher's {_list(theirs)}",
        f"a student takes the teacher's place: it must have the same {kind}",
    )


def _list(values: Sequence[ir.Value]) -> str:
    return ", ".join(f"{value.name} {_shape(value)}" for value in values) or "none"


def _shape(value: ir.Value) -> str:
    if value.shape is None:
        return "of unknown shape"
    return f"[{', '.join(str(size) for size in value.shape)}]"


def _inputs(model: ir.Model) -> list[ir.Value]:
    return [value for value in model.graph.inputs if not value.is_initializer()]
