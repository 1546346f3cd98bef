"""Writes the body of an ONNX function: the few operators that every encoding is rebuilt with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

DOMAIN = "modelkit.packing"
"""Domain of the functions; they are part of the file, and need nothing that is not in it."""

LEAST_OPSET = 18
"""The first version of the standard operator set with ``BitwiseAnd`` and ``BitwiseOr``."""


class Body:
    """Nodes of a function, one call for each.

    Args:
        inputs: Names of the function's inputs, in order.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = list(inputs)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[bytes, str] = {}
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output and return its name."""
        return self._node(kind, inputs, 1, "", attributes)[0]

    def call(self, name: str, *inputs: str, outputs: int, **attributes: object) -> list[str]:
        """Call another function of this domain and return the names of its outputs."""
        return self._node(name, inputs, outputs, DOMAIN, attributes)

    def _node(
        self, kind: str, inputs: Sequence[str], outputs: int, domain: str, attributes: dict[str, Any]
    ) -> list[str]:
        names = [f"v{self._count + i + 1}" for i in range(outputs)]
        self._count += outputs
        self._nodes.append(helper.make_node(kind, list(inputs), names, domain=domain or None, **attributes))
        return names

    def constant(self, value: np.ndarray | np.generic) -> str:
        """A constant, the same one where it was asked for before."""
        tensor = numpy_helper.from_array(np.asarray(value))
        key = tensor.SerializeToString(deterministic=True)
        if key not in self._constants:
            self._constants[key] = self.op("Constant", value=tensor)
        return self._constants[key]

    def attribute(self, name: str) -> str:
        """A list of integers that each call gives, ``int64[n]``."""
        output = self.op("Constant")
        self._nodes[-1].attribute.append(
            onnx.AttributeProto(name="value_ints", ref_attr_name=name, type=onnx.AttributeProto.INTS)
        )
        return output

    def integers(self, value: str) -> str:
        """Turn codes into ``int32``, in which onnxruntime adds, counts and looks up."""
        return self.op("Cast", value, to=onnx.TensorProto.INT32)

    def function(
        self, name: str, opset: int, outputs: Sequence[str], attributes: Sequence[str]
    ) -> onnx.FunctionProto:
        """Close the body.

        Args:
            name: Name of the function.
            opset: Version of the standard operator set, which must be the model's.
            outputs: The values that are the results.
            attributes: What each call gives.
        """
        imports = [helper.make_opsetid("", opset)]
        if any(node.domain for node in self._nodes):
            imports.append(helper.make_opsetid(DOMAIN, 1))
        return helper.make_function(DOMAIN, name, self._inputs, list(outputs), self._nodes, imports, list(attributes))
