"""Builds a graph node by node: shapes are known, parameters and multiply-accumulates counted as it grows."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.architectures.signature import Signature
from modelkit.errors import ModelError
from modelkit.graph.edit import add_initializer, make_node

OPSET, IR_VERSION = 20, 10


@dataclass(frozen=True)
class Feature:
    """A value inside a network.

    Attributes:
        shape: Of one sample, without the batch.
        value: In the graph; None where nothing is built.
    """

    shape: tuple[int, ...]
    value: ir.Value | None


class Net:
    """A graph that grows.

    Args:
        signature: Its input and output.
        seed: Seed of the weights: those of a name are the same whatever else is in the graph.
        dry: Whether only to count, and to build nothing.

    Attributes:
        parameters: Numbers that are trained, so far; statistics of normalisations count too, as in ``describe``.
        macs: Multiply-accumulates for one sample, so far.
    """

    def __init__(self, signature: Signature, seed: int, *, dry: bool = False) -> None:
        self._signature, self._seed, self._dry = signature, seed, dry
        self.parameters = self.macs = 0
        self._taken: dict[str, int] = {}
        value = None
        if not dry:
            kind = ir.DataType.INT64 if signature.tokens else ir.DataType.FLOAT
            value = ir.Value(
                name=signature.input, type=ir.TensorType(kind), shape=ir.Shape(["batch", *signature.shape])
            )
            self.graph = ir.Graph([value], [], nodes=[], opset_imports={"": OPSET}, name="network")
        self._names = {signature.input, signature.output}
        self.input = Feature(signature.shape, value)

    # Pieces

    def name(self, wish: str) -> str:
        """A name that is free."""
        if wish not in self._names:
            self._names.add(wish)
            return wish
        number = self._taken.get(wish, 1)
        while f"{wish}_{number}" in self._names:
            number += 1
        self._taken[wish] = number
        self._names.add(f"{wish}_{number}")
        return f"{wish}_{number}"

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        shape: tuple[int, ...],
        *,
        name: str | None = None,
        **attributes: object,
    ) -> Feature:
        """Add a node with one output."""
        if self._dry:
            return Feature(shape, None)
        label = self.name(name or op.lower())
        node = make_node(
            op, inputs, [label], name=f"node_{label}", attributes=attributes, shapes=[ir.Shape(["batch", *shape])]
        )
        self.graph.append(node)
        return Feature(shape, node.outputs[0])

    def weight(self, name: str, shape: tuple[int, ...], deviation: float | None) -> ir.Value | None:
        """An initializer of normal numbers, or of zeros where there is no deviation."""
        self.parameters += math.prod(shape)
        if self._dry:
            return None
        if deviation is None:
            return self._initializer(name, np.zeros(shape, np.float32))
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        return self._initializer(name, (rng.standard_normal(shape) * deviation).astype(np.float32))

    def _filled(self, name: str, count: int, number: float) -> ir.Value | None:
        self.parameters += count
        return None if self._dry else self._initializer(name, np.full(count, number, np.float32))

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self.graph, self.name(name), array)

    def constant(self, name: str, array: np.ndarray) -> ir.Value | None:
        """A number that is part of a formula, not counted as a parameter."""
        return None if self._dry else self._initializer(name, array)

    # Layers

    def linear(self, x: Feature, width: int, name: str, *, gain: float = 2.0, last: bool = False) -> Feature:
        """A fully connected layer over vectors (Gemm), or over the last axis of more (MatMul and Add)."""
        fan = x.shape[-1]
        self.macs += math.prod(x.shape) * width
        deviation = math.sqrt((1.0 if last else gain) / fan)
        if len(x.shape) == 1:
            weight = self.weight(f"{name}.weight", (width, fan), deviation)
            bias = self.weight(f"{name}.bias", (width,), None)
            return self.node("Gemm", [x.value, weight, bias], (width,), name=name, transB=1)
        weight = self.weight(f"{name}.weight", (fan, width), deviation)
        bias = self.weight(f"{name}.bias", (width,), None)
        shape = (*x.shape[:-1], width)
        product = self.node("MatMul", [x.value, weight], shape, name=f"{name}.product")
        return self.node("Add", [product.value, bias], shape, name=name)

    def conv(
        self,
        x: Feature,
        width: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        depthwise: bool = False,
        bias: bool = False,
    ) -> Feature:
        """A convolution that keeps the size of the image, but for its stride."""
        channels, height, length = x.shape
        groups = channels if depthwise else 1
        inside = channels // groups
        shape = (width, -(-height // stride), -(-length // stride))
        self.macs += math.prod(shape) * inside * kernel * kernel
        deviation = math.sqrt(2.0 / (inside * kernel * kernel))
        inputs = [x.value, self.weight(f"{name}.weight", (width, inside, kernel, kernel), deviation)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", (width,), None))
        return self.node(
            "Conv",
            inputs,
            shape,
            name=name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=_pads(height, length, kernel, stride),
            group=groups,
        )

    def patches(self, x: Feature, width: int, size: int, name: str) -> Feature:
        """A convolution over patches that do not overlap, without padding."""
        channels, height, length = x.shape
        shape = (width, height // size, length // size)
        if min(shape[1:]) < 1:
            raise ModelError(
                f"a patch of {size} pixels is larger than the image of {height} x {length}", "give a smaller patch"
            )
        fan = channels * size * size
        self.macs += math.prod(shape) * fan
        weight = self.weight(f"{name}.weight", (width, channels, size, size), math.sqrt(1.0 / fan))
        bias = self.weight(f"{name}.bias", (width,), None)
        return self.node(
            "Conv", [x.value, weight, bias], shape, name=name, kernel_shape=[size, size], strides=[size, size]
        )

    def batchnorm(self, x: Feature, name: str) -> Feature:
        """Normalise each channel over the batch."""
        width = x.shape[0]
        numbers = [
            self._filled(f"{name}.{part}", width, number)
            for part, number in (("scale", 1.0), ("shift", 0.0), ("mean", 0.0), ("variance", 1.0))
        ]
        return self.node("BatchNormalization", [x.value, *numbers], x.shape, name=name)

    def layernorm(self, x: Feature, name: str) -> Feature:
        """Normalise each token."""
        width = x.shape[-1]
        numbers = [self._filled(f"{name}.scale", width, 1.0), self._filled(f"{name}.shift", width, 0.0)]
        return self.node("LayerNormalization", [x.value, *numbers], x.shape, name=name, axis=-1)

    def activation(self, x: Feature, kind: str) -> Feature:
        """An activation function."""
        plain = {"relu": "Relu", "hard_swish": "HardSwish", "elu": "Elu", "tanh": "Tanh", "gelu": "Gelu"}
        if kind in plain:
            return self.node(plain[kind], [x.value], x.shape)
        if kind == "leaky_relu":
            return self.node("LeakyRelu", [x.value], x.shape, alpha=0.1)
        if kind == "relu6":
            bounds = [self.constant(n, np.array(v, np.float32)) for n, v in (("clip.low", 0.0), ("clip.high", 6.0))]
            return self.node("Clip", [x.value, *bounds], x.shape)
        gate = self.node("Sigmoid", [x.value], x.shape)
        return self.node("Mul", [x.value, gate.value], x.shape, name="silu")

    def dropout(self, x: Feature, share: float) -> Feature:
        """Leave numbers out at random while it is trained."""
        if not share:
            return x
        ratio = self.constant("dropout.ratio", np.array(share, np.float32))
        return self.node("Dropout", [x.value, ratio], x.shape)

    def add(self, x: Feature, y: Feature) -> Feature:
        """The sum of two values of one shape."""
        return self.node("Add", [x.value, y.value], x.shape)

    def multiply(self, x: Feature, y: Feature) -> Feature:
        """The product of two values, which has the first one's shape."""
        return self.node("Mul", [x.value, y.value], x.shape)

    def pool(self, x: Feature, kind: str, kernel: int = 3, stride: int = 1) -> Feature:
        """A pool that keeps the size of the image, but for its stride; kind is "max" or "avg"."""
        channels, height, length = x.shape
        shape = (channels, -(-height // stride), -(-length // stride))
        op = {"max": "MaxPool", "avg": "AveragePool"}[kind]
        return self.node(
            op,
            [x.value],
            shape,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=_pads(height, length, kernel, stride),
        )

    def global_pool(self, x: Feature, kind: str) -> Feature:
        """One number for each channel; kind is "max" or "avg"."""
        op = {"max": "GlobalMaxPool", "avg": "GlobalAveragePool"}[kind]
        pooled = self.node(op, [x.value], (x.shape[0], 1, 1))
        return self.flatten(pooled)

    def flatten(self, x: Feature) -> Feature:
        """A vector of all numbers of a sample."""
        return x if len(x.shape) == 1 else self.node("Flatten", [x.value], (math.prod(x.shape),), axis=1)

    def reshape(self, x: Feature, shape: tuple[int, ...]) -> Feature:
        """The same numbers in another shape."""
        if x.shape == shape:
            return x
        return self.node("Reshape", [x.value, self.constant("shape", np.array([0, *shape], np.int64))], shape)

    def transpose(self, x: Feature, order: Sequence[int]) -> Feature:
        """Axes in another order, counted without the batch."""
        shape = tuple(x.shape[axis] for axis in order)
        return self.node("Transpose", [x.value], shape, perm=[0, *(axis + 1 for axis in order)])

    def matmul(self, x: Feature, y: Feature) -> Feature:
        """A product of matrices, as ``numpy.matmul``."""
        shape = (*x.shape[:-1], y.shape[-1])
        self.macs += math.prod(shape) * x.shape[-1]
        return self.node("MatMul", [x.value, y.value], shape)

    def standardised(self, x: Feature) -> Feature:
        """What comes in, brought to mean 0 and deviation 1 where the signature knows how."""
        mean, scale = self._signature.mean, self._signature.scale
        if not mean:
            return x
        count = len(mean)
        self.parameters += 2 * count if count > 1 else 0
        shape = (1, count, 1, 1) if len(x.shape) == 3 and count == x.shape[0] else (1, *x.shape)
        shift = self.constant("input.mean", np.array(mean, np.float32).reshape(shape))
        factor = self.constant("input.scale", np.array(scale, np.float32).reshape(shape))
        centred = self.node("Sub", [x.value, shift], x.shape, name="input.centred")
        return self.node("Mul", [centred.value, factor], x.shape, name="input.standardised")

    def finish(self, x: Feature) -> ir.Model:
        """Make a model whose output is a value."""
        signature = self._signature
        if signature.vector:
            axes = self.constant("output.axis", np.array([1], np.int64))
            x = self.node("Squeeze", [x.value, axes], (), name="output.value")
        assert x.value is not None
        x.value.name = signature.output
        self.graph.outputs.append(x.value)
        return ir.Model(self.graph, ir_version=IR_VERSION, producer_name="modelkit")


def _pads(height: int, length: int, kernel: int, stride: int) -> list[int]:
    """Zeros at the top, left, bottom and right, so that the size is that of the input over the stride, rounded up."""
    before, after = [], []
    for size in (height, length):
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        before.append(total // 2)
        after.append(total - total // 2)
    return [*before, *after]
