"""Small nets whose channels are known, for tests of what takes channels out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from modelkit.graph.normalise import normalise


class Net:
    """Collects nodes and weights; float32, opset 17."""

    def __init__(self, inputs: dict[str, list], outputs: dict[str, list], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self._inputs, self._outputs = inputs, outputs
        self._nodes: list = []
        self._weights: list = []

    def weight(self, name: str, array: np.ndarray) -> str:
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def normal(self, *shape: int) -> np.ndarray:
        scale = np.sqrt(2 / max(np.prod(shape[1:]), 1))
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def conv(self, x: str, name: str, array: np.ndarray, out: str | None = None, **attributes) -> str:
        inputs = [x, self.weight(f"{name}.w", array), self.weight(f"{name}.b", 0.1 * self.normal(array.shape[0]))]
        pad = array.shape[2] // 2
        return self.node("Conv", inputs, out or name, pads=[pad] * 4, **attributes)

    def build(self) -> ir.Model:
        def infos(entries: dict[str, list]) -> list:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in entries.items()]

        graph = helper.make_graph(
            self._nodes, "net", infos(self._inputs), infos(self._outputs), initializer=self._weights
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model = ir.serde.deserialize_model(proto)
        normalise(model)
        return model


def residual(width: int = 12, inner: int = 16, seed: int = 0) -> Net:
    """A stem, a residual block whose inner channels can go, and a second convolution behind it; 3x6x6 images."""
    net = Net({"x": ["n", 3, 6, 6]}, {"y": ["n", 4, 6, 6]}, seed)
    stem = net.node("Relu", [net.conv("x", "stem", net.normal(width, 3, 3, 3))], "stem_relu")
    body = net.node("Relu", [net.conv(stem, "first", net.normal(inner, width, 3, 3))], "first_relu")
    body = net.conv(body, "second", net.normal(width, inner, 3, 3))
    total = net.node("Relu", [net.node("Add", [body, stem], "sum")], "sum_relu")
    net.conv(total, "last", net.normal(4, width, 1, 1), out="y")
    return net


def copies(seed: int = 0) -> ir.Model:
    """A residual net in which every second inner channel is its neighbour again: half of them can go for nothing."""
    model = residual(seed=seed).build()
    for name in ("first.w", "first.b"):
        value = model.graph.initializers[name]
        array = value.const_value.numpy().copy()
        array[1::2] = array[::2]
        value.const_value = ir.tensor(array, name=name)
    return model


def images(count: int = 48, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 6, 6)).astype(np.float32)
