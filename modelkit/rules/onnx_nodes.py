"""A small builder of ONNX graphs: nodes and constants by name, each constant kept once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 18
ML_OPSET = 5
IR_VERSION = 10


class Nodes:
    """Collects the nodes and constants of a graph.

    Args:
        taken: Names that inner values must not have.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._prefix = "/"
        while any(name.startswith(self._prefix) for name in taken):
            self._prefix += "/"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def constant(self, value: np.ndarray | np.generic | float | int | list[int], dtype: Any = None) -> str:
        """A constant's name; texts are given as object arrays."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype)
        if array.dtype == object:
            content = repr(array.tolist()).encode()
        else:
            array = np.ascontiguousarray(array)
            content = array.tobytes()
        key = (str(array.dtype), array.shape, content)
        if key not in self._known:
            name = self._known[key] = f"{self._prefix}c{len(self.constants)}"
            self.constants[name] = numpy_helper.from_array(array, name)
        return self._known[key]

    def add(self, op: str, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        from onnx import helper

        output = name or f"{self._prefix}v{self._count}"
        self._count += 1
        self.nodes.append(
            helper.make_node(op, list(inputs), [output], name=f"{op}_{output}", domain=domain, **attributes)
        )
        return output

    def cast(self, value: str, kind: str) -> str:
        """A value as DOUBLE, INT64, UINT8, ..."""
        import onnx

        return self.add("Cast", value, to=getattr(onnx.TensorProto, kind))

    def column(self, value: str) -> str:
        """[N] as [N, 1]."""
        return self.add("Unsqueeze", value, self.constant([1], np.int64))

    def row(self, value: str) -> str:
        """[N] as [1, N]."""
        return self.add("Unsqueeze", value, self.constant([0], np.int64))

    def flat(self, value: str, axis: int = 1) -> str:
        """[N, 1], or [1, N] with axis 0, as [N]."""
        return self.add("Squeeze", value, self.constant([axis], np.int64))

    def pick(self, table: np.ndarray, index: str) -> str:
        """Rows of a constant table by index."""
        return self.add("Gather", self.constant(table), index, axis=0)

    def columns(self, value: str, which: np.ndarray | list[int]) -> str:
        """Some columns of [N, C]."""
        return self.add("Gather", value, self.constant(np.asarray(which, np.int64)), axis=1)

    def join(self, values: list[str]) -> str:
        """[N, A], [N, B], ... side by side."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=1)

    def stack(self, values: list[str]) -> str:
        """[A, N], [B, N], ... below one another."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=0)
