"""A student that is written down: an architecture with fresh weights and the teacher's inputs and outputs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelkit.architectures.build import Family, build, read
from modelkit.architectures.config import FAMILIES
from modelkit.architectures.signature import Signature, spread
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.distill.matching import match
from modelkit.distill.student import Student, check_trainable
from modelkit.errors import ModelError
from modelkit.graph.facts import describe
from modelkit.graph.layers import input_vocabulary
from modelkit.progress import Progress, silent
from modelkit.report.units import number

_SPREAD = 2048  # samples that the spread of the inputs is told from
_ELSE = "--student FILE gives a network as an ONNX file"


def architecture_of(student: str | Family) -> Family | None:
    """The architecture that a config names: by its family, by a YAML file or in full; None for an ONNX file.

    Raises:
        ConfigError: The YAML is no architecture.
        UsageError: It is not there.
    """
    if not isinstance(student, str):
        return student
    if student in FAMILIES:
        return FAMILIES[student]()
    return read(Path(student)) if Path(student).suffix in (".yaml", ".yml") else None


class Grown:
    """A network with fresh weights, of an architecture that fits the teacher's inputs and outputs.

    Args:
        architecture: What it is made of.
        teacher: The normalised teacher.
        data: Inputs, whose spread the network is told.
        seed: Seed of the weights.
        allow_larger: Whether it may have more parameters than the teacher.
    """

    def __init__(
        self, architecture: Family, teacher: ir.Model, data: Dataset, *, seed: int, allow_larger: bool
    ) -> None:
        self._architecture, self._teacher, self._data = architecture, teacher, data
        self._seed, self._allow_larger = seed, allow_larger

    def check(self) -> None:
        """See `Source.check`."""
        own, theirs = describe(self._student.model).parameters, describe(self._teacher).parameters
        if own > theirs and not self._allow_larger:
            raise ModelError(
                f"the student has {number(own)} parameters, more than the teacher's {number(theirs)}",
                "give it smaller sizes in the YAML; --allow-larger takes it all the same",
            )
        check_trainable(self._student.model)

    def make(self, ratio: float, progress: Progress = silent) -> Student:
        """See `Source.make`."""
        return self._student

    def name(self, ratio: float) -> str:
        """See `Source.name`."""
        return self._architecture.family

    @cached_property
    def _student(self) -> Student:
        model = build(self._architecture, signature_of(self._teacher, self._data), seed=self._seed)
        reason = f"a network of the family {self._architecture.family}, with fresh weights"
        made = Decision("model", "built", reason, {"parameters": describe(model).parameters})
        return Student(model, [made, *match(model, self._teacher)])


def signature_of(teacher: ir.Model, data: Dataset) -> Signature:
    """What a network must read and give to stand in a teacher's place.

    Raises:
        ModelError: The teacher has several inputs or outputs, or sizes that are not fixed.
    """
    inputs = [value for value in teacher.graph.inputs if value.name not in teacher.graph.initializers]
    outputs = list(teacher.graph.outputs)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"a student of a family has one input and one output, and the teacher {len(inputs)} and {len(outputs)}",
            _ELSE,
        )
    entry, end = inputs[0], outputs[0]
    shape, given = _sizes(entry), _sizes(end)
    if given is None or len(given) > 1:
        raise ModelError(f"a student of a family gives one vector, and the teacher's '{end.name}' is none", _ELSE)
    if shape is None:
        raise ModelError(f"the sizes of the teacher's input '{entry.name}' are not fixed", _ELSE)
    tokens = entry.dtype is not None and entry.dtype.is_integer()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    if not tokens:
        batches = data.batches(256, limit=min(_SPREAD, data.count))
        mean, scale = spread(np.concatenate([batch.real(str(entry.name)) for batch in batches]))
    return Signature(
        shape,
        given[0] if given else 1,
        str(entry.name),
        str(end.name),
        tokens,
        input_vocabulary(teacher).get(str(entry.name), 0),
        mean,
        scale,
        vector=not given,
    )


def _sizes(value: ir.Value) -> tuple[int, ...] | None:
    """Fixed sizes behind the batch; None where one is not fixed."""
    if value.shape is None or not len(value.shape):
        return None
    sizes = [size for size in list(value.shape)[1:] if isinstance(size, int)]
    return tuple(sizes) if len(sizes) == len(value.shape) - 1 else None
