"""Builds the ONNX graph of a fitted pipeline: nodes and constants by name, each constant kept once.

All numbers are doubles, because scikit-learn and LightGBM compute in doubles: a float32 threshold sends rows near it
to the other side of a tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 21
ML_OPSET = 5
IR_VERSION = 10
ML = "ai.onnx.ml"


class Graph:
    """Collects the nodes and constants of a graph.

    Args:
        taken: Names of inputs and outputs, which inner values must not have.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._prefix = "/"
        while any(name.startswith(self._prefix) for name in taken):
            self._prefix += "/"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Keep an array and return its name.

        Args:
            value: Anything that numpy makes an array of; text as an array of objects.
            dtype: Its type; float64 is meant to be the only type of numbers that are computed with.
        """
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        if array.dtype == object:
            content = repr(array.tolist()).encode()
        else:
            array = np.asarray(array, order="C")
            content = array.tobytes()
        key = (str(array.dtype), array.shape, content)
        if key not in self._known:
            name = self._known[key] = f"{self._prefix}c{len(self.constants)}"
            self.constants[name] = numpy_helper.from_array(array, name)
        return self._known[key]

    def node(self, op: str, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name.

        Args:
            op: Operator.
            inputs: Names of values; "" for one that is left out.
            name: Name of the output; made up by default.
            domain: Domain of the operator: "" or ``ML``.
            attributes: As ``onnx.helper.make_node`` takes them; arrays as TensorProto.
        """
        return self.nodes_of(op, inputs, 1, names=None if name is None else [name], domain=domain, **attributes)[0]

    def nodes_of(
        self,
        op: str,
        inputs: Iterable[str],
        outputs: int,
        *,
        names: list[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs and return their names."""
        from onnx import helper

        made = names or [f"{self._prefix}v{len(self.nodes)}_{index}" for index in range(outputs)]
        label = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), made, name=label, domain=domain, **attributes))
        return made

    def cast(self, value: str, dtype: Any) -> str:
        """A value as another numpy type."""
        from onnx import helper

        return self.node("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def affine(self, value: str, scale: np.ndarray | float, offset: np.ndarray | float) -> str:
        """``value * scale + offset``, the two as [F] or scalars."""
        return self.node("Add", self.node("Mul", value, self.constant(scale, float)), self.constant(offset, float))

    def dense(self, value: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """``value @ weight + bias`` for [N, F] @ [F, K] + [K]."""
        weight, bias = np.asarray(weight, float), np.asarray(bias, float)
        return self.node("Add", self.node("MatMul", value, self.constant(weight)), self.constant(bias))

    def columns(self, value: str, which: Any) -> str:
        """Some columns of [N, F] by number."""
        return self.node("Gather", value, self.constant(which, np.int64), axis=1)

    def column(self, value: str) -> str:
        """[N] as [N, 1]."""
        return self.node("Unsqueeze", value, self.constant([1], np.int64))

    def flat(self, value: str) -> str:
        """[N, 1] as [N]."""
        return self.node("Squeeze", value, self.constant([1], np.int64))

    def join(self, values: list[str]) -> str:
        """[N, A], [N, B], ... side by side."""
        return values[0] if len(values) == 1 else self.node("Concat", *values, axis=1)

    def both(self, positive: str) -> str:
        """Probabilities of two classes [N, 2] from that of the second [N, 1]."""
        return self.join([self.node("Sub", self.constant(1.0), positive), positive])

    def total(self, value: str, axis: int = 1) -> str:
        """Sum over an axis, which is kept with size 1."""
        return self.node("ReduceSum", value, self.constant([axis], np.int64), keepdims=1)
