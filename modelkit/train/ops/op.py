"""A node as the operator functions see it: its attributes, its opset, what is given and what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

# What runs in every pass: takes the input tensors (None for one that is absent), returns one tensor or a tuple.
Kernel = Callable[..., Any]
# The function of an operator: reads the attributes once and returns what runs.
Builder = Callable[["Op"], "Kernel | Moded"]


class Unsupported(Exception):  # noqa: N818 - caught while a graph is compiled, where all are told at once
    """A node asks for something that is not done here; the text says what."""


@dataclass(frozen=True)
class Moded:
    """A kernel that behaves differently in training: its first argument is whether this is training."""

    run: Kernel


@dataclass(frozen=True)
class Op:
    """One node.

    Attributes:
        node: The node.
        opset: Version of the standard operator set.
        widen: Whether float16 and bfloat16 are computed in float32.
        constants: For each input the tensor, where it never changes and is not trained; else None.
        straight_through: Whether gradients pass through the rounding of ``QuantizeLinear``.
    """

    node: ir.Node
    opset: int
    widen: bool = True
    constants: Sequence[Tensor | None] = ()
    straight_through: bool = False

    def has(self, name: str) -> bool:
        """Whether an attribute is set."""
        return name in self.node.attributes

    def value(self, name: str, default: Any = None) -> Any:
        """An attribute as a plain Python value."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        if attribute.is_ref():
            raise Unsupported(f"its attribute '{name}' refers to a function's")
        return attribute.value

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        return int(self.value(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute that means yes or no."""
        return bool(self.value(name, default))

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self.value(name, default))

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        return str(self.value(name, default))

    def integers(self, name: str) -> list[int] | None:
        """A list of integers; None where it is not set."""
        found = self.value(name)
        return None if found is None else [int(n) for n in found]

    def numbers(self, name: str) -> list[float] | None:
        """A list of floats; None where it is not set."""
        found = self.value(name)
        return None if found is None else [float(n) for n in found]

    def given(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def wanted(self, index: int) -> bool:
        """Whether anything reads an output."""
        if index >= len(self.node.outputs):
            return False
        output = self.node.outputs[index]
        return bool(output.uses()) or output.is_graph_output()

    def constant(self, index: int) -> Tensor | None:
        """An input's tensor where it is known now."""
        return self.constants[index] if index < len(self.constants) else None


def plain(function: Kernel) -> Builder:
    """An operator without attributes that torch has under another name."""
    return lambda op: function


def as_list(x: Tensor) -> list[Any]:
    """A tensor of shapes, axes or positions as Python numbers."""
    found = x.tolist()
    return found if isinstance(found, list) else [found]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis


def is_integer(x: Tensor) -> bool:
    """Whether a tensor holds whole numbers (not booleans)."""
    return not (x.dtype.is_floating_point or x.dtype.is_complex or x.dtype is torch.bool)
