"""Which tensors inside a student follow which inside the teacher: named, or found by depth and resolution."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.run import session_of
from modelkit.runtime import run
from modelkit.train.follow import Hint

# What ends a layer: activations, sums with a shortcut, normalisations.
_ENDS = {
    *("Add", "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LayerNormalization", "LeakyRelu", "Mish"),
    *("BatchNormalization", "PRelu", "Relu", "RMSNormalization", "Selu", "Sigmoid", "Softplus", "Swish", "Tanh"),
}
# Two samples tell the axis that counts them from those that do not.
_SAMPLES = 2


@dataclass(frozen=True)
class _Tensor:
    """A value inside a model.

    Attributes:
        name: Its name.
        shape: Its shape for a batch.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def resolution(self) -> tuple[int, ...]:
        """What a student's tensor must share: its sizes without samples and channels."""
        return self.shape[1:-1] if len(self.shape) == 3 else self.shape[2:]


def pair(
    student: ir.Model,
    teacher: ir.Model,
    data: Dataset,
    *,
    kind: Literal["features", "attention"],
    named: Mapping[str, str],
    most: int,
) -> tuple[list[Hint], list[Decision]]:
    """Pair tensors of a student with those of its teacher.

    Tensors of the same name and resolution are the same place of a network that was cut out of its teacher. Else the
    last tensors of each resolution are paired, and where there are too few, others by their relative depth.

    Args:
        student: The student.
        teacher: The teacher.
        data: Inputs, of which a few are run to see shapes.
        kind: "features" are what layers end in; "attention" is what a Softmax over keys gives, of four dimensions.
        named: Names in the student with those in the teacher, instead of what is found here.
        most: How many pairs to find at most.

    Returns:
        The pairs, in the order of the student's graph, and a decision for each.

    Raises:
        ModelError: A name does not exist, two named tensors do not fit, or nothing can be paired.
    """
    if named:
        pairs = _named(student, teacher, data, named, kind)
    else:
        own, theirs = (_ends(model, data, kind) for model in (student, teacher))
        pairs = _found(own, theirs, most)
        if not pairs:
            what = "attention of the same size" if kind == "attention" else "tensors of the same resolution"
            raise ModelError(
                f"no {what} is in both the student and the teacher, so nothing can be paired",
                "name pairs with features.pairs, or use the method logits",
            )
    hints = [Hint(one.name, other.name, kind) for one, other in pairs]
    decisions = [
        Decision(
            one.name,
            "paired",
            f"follows the teacher's '{other.name}'",
            {"shape": _text(one.shape), "teacher_shape": _text(other.shape)},
        )
        for one, other in pairs
    ]
    return hints, decisions


def _found(own: Sequence[_Tensor], theirs: Sequence[_Tensor], most: int) -> list[tuple[_Tensor, _Tensor]]:
    by_name = {tensor.name: tensor for tensor in theirs}
    same = [(t, by_name[t.name]) for t in own if t.name in by_name and by_name[t.name].resolution == t.resolution]
    if len(same) > len(own) // 2:
        stages = [list(group) for _, group in groupby(same, key=lambda both: both[0].resolution)]
        return _some(same, [stage[-1] for stage in stages], most)
    last, others = ({tensor.resolution: tensor for tensor in tensors} for tensors in (own, theirs))
    ends = [(tensor, others[resolution]) for resolution, tensor in last.items() if resolution in others]
    pairs: list[tuple[_Tensor, _Tensor]] = []
    for resolution in last.keys() & others.keys():
        left, right = ([t for t in tensors if t.resolution == resolution] for tensors in (own, theirs))
        # The i-th of n has the place of the one as far along the other's row.
        pairs += [(t, right[-(-(i + 1) * len(right) // len(left)) - 1]) for i, t in enumerate(left)]
    order = {tensor.name: place for place, tensor in enumerate(own)}
    return _some(sorted(pairs, key=lambda both: order[both[0].name]), ends, most)


def _some(
    pairs: list[tuple[_Tensor, _Tensor]], first: list[tuple[_Tensor, _Tensor]], most: int
) -> list[tuple[_Tensor, _Tensor]]:
    """The ends of stages, the deepest first, then others spread over the depth."""
    chosen = first[-most:]
    rest = [both for both in pairs if both not in chosen]
    missing = min(most - len(chosen), len(rest))
    chosen += [rest[(2 * i + 1) * len(rest) // (2 * missing)] for i in range(missing)]
    return [both for both in pairs if both in chosen]


def _named(
    student: ir.Model, teacher: ir.Model, data: Dataset, named: Mapping[str, str], kind: str
) -> list[tuple[_Tensor, _Tensor]]:
    for who, model, names in (("student", student, named.keys()), ("teacher", teacher, named.values())):
        known = [str(value.name) for value in _values(model)]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 3, 0.4) or known[-3:]
                raise ModelError(
                    f"the {who} has no tensor '{name}' to pair", f"near it: {', '.join(near)}; modelkit inspect"
                )
    own, theirs = _shapes(student, list(named), data), _shapes(teacher, list(named.values()), data)
    pairs = [(_Tensor(one, own[one]), _Tensor(other, theirs[other])) for one, other in named.items()]
    for one, other in pairs:
        if len(one.shape) != len(other.shape) or one.resolution != other.resolution:
            raise ModelError(
                f"the student's '{one.name}' {_text(one.shape)} cannot follow the teacher's '{other.name}' "
                f"{_text(other.shape)}",
                "pairs may differ in their channels only",
            )
        if kind == "attention" and len(one.shape) != 4:
            raise ModelError(f"'{one.name}' {_text(one.shape)} is no attention of heads", "name what a Softmax gives")
    return pairs


def _ends(model: ir.Model, data: Dataset, kind: str) -> list[_Tensor]:
    """Tensors that may be paired, in the order of the graph: of floats, samples first."""
    wanted = [v for v in _values(model) if _is_end(v, kind)]
    shapes = _shapes(model, [str(value.name) for value in wanted], data)
    found = [_Tensor(name, shape) for name, shape in shapes.items()]
    if kind == "attention":
        return [t for t in found if len(t.shape) == 4 and t.shape[0] == _rows(data)]
    return [t for t in found if 2 <= len(t.shape) <= 4 and t.shape[0] == _rows(data) and 0 not in t.shape]


def _is_end(value: ir.Value, kind: str) -> bool:
    node = value.producer()
    if node is None or node.domain or value.is_graph_output():
        return False
    if kind == "attention":
        return node.op_type == "Softmax"
    return node.op_type in _ENDS and (value.dtype is None or value.dtype.is_floating_point())


def _values(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.name]


def _rows(data: Dataset) -> int:
    return data.plan.fixed or min(_SAMPLES, data.count)


def _shapes(model: ir.Model, names: Sequence[str], data: Dataset) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors for a few samples."""
    if not names:
        return {}
    session = session_of(model, extra_outputs=names)
    inputs = next(iter(data.batches(_SAMPLES))).inputs
    feeds = {arg.name: inputs[arg.name] for arg in session.get_inputs()}
    arrays = run(session, feeds, "model", list(names))
    return {name: np.shape(array) for name, array in zip(names, arrays, strict=True)}


def _text(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"
