"""Writes the body of an ONNX function: the few operators that every encoding is rebuilt with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import numpy as np
import onnx
from onnx import helper as helper_
from onnx import numpy_helper

DOMAIN = "modelkit.packing"
"""Domain of the functions; they are part of the file, and need nothing that is not in it."""

LEAST_OPSET = 18
"""The first version of the standard operator set with ``BitwiseAnd`` and ``BitwiseOr``."""


@dataclass(frozen=True)
class Helper:
    """A function that other functions call, so that what they share is in the file once.

    Attributes:
        name: Of the function.
        write: Writes its body; returns that with the names of the outputs and of the attributes.
        doc: What it does.
    """

    name: str
    write: Callable[[], tuple[Body, Sequence[str], Sequence[str]]]
    doc: str

    def functions(self, opset: int) -> list[onnx.FunctionProto]:
        """The functions that it calls, and the function."""
        body, outputs, attributes = self.write()
        return body.functions(self.name, opset, outputs, attributes, self.doc)


class Body:
    """Nodes of a function, one call for each. Names of values are short: they are part of every packed file.

    Args:
        inputs: Names of the function's inputs, in order.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = list(inputs)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[bytes, str] = {}
        self._helpers: dict[str, Helper] = {}
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output and return its name."""
        return self._node(kind, inputs, 1, "", attributes)[0]

    def call(self, helper: Helper, *inputs: str, outputs: int = 1, **attributes: object) -> list[str]:
        """Call another function of this domain and return the names of its outputs."""
        self._helpers[helper.name] = helper
        return self._node(helper.name, inputs, outputs, DOMAIN, attributes)

    def _node(
        self, kind: str, inputs: Sequence[str], outputs: int, domain: str, attributes: dict[str, Any]
    ) -> list[str]:
        names = [self._name() for _ in range(outputs)]
        self._nodes.append(helper_.make_node(kind, list(inputs), names, domain=domain or None, **attributes))
        return names

    def _name(self) -> str:
        """The next name that is free: a to Z, then aa and so on."""
        while True:
            self._count += 1
            name, left = "", self._count
            while left:
                left, letter = divmod(left - 1, len(ascii_letters))
                name = ascii_letters[letter] + name
            if name not in self._inputs:
                return name

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

    def functions(
        self, name: str, opset: int, outputs: Sequence[str], attributes: Sequence[str], doc: str
    ) -> list[onnx.FunctionProto]:
        """Close the body.

        Args:
            name: Name of the function.
            opset: Version of the standard operator set, which must be the model's.
            outputs: The values that are the results.
            attributes: What each call gives.
            doc: What it does.

        Returns:
            The functions that it calls, each behind those that that one calls, and the function.
        """
        called: dict[str, onnx.FunctionProto] = {}
        for helper in self._helpers.values():
            called |= {each.name: each for each in helper.functions(opset)}
        imports = [helper_.make_opsetid("", opset), *([helper_.make_opsetid(DOMAIN, 1)] if called else [])]
        made = helper_.make_function(
            DOMAIN, name, self._inputs, list(outputs), self._nodes, imports, list(attributes), doc_string=doc
        )
        return [*called.values(), made]
