"""Finds the weights in an ONNX file, and the zero points that belong to them.

Which numbers are parameters, so that a model counts the same before and after quantization:

* Every float tensor stored in the file (initializer or ``Constant``), also of 16 bits, 8 bits or fewer.
* Every integer tensor of 8 bits or fewer; of 16 and 32 bits where it stands for floats: where it goes into
  ``DequantizeLinear`` (as int32 biases do), into ``Cast`` -> ``Mul``, or is the bias of ``QLinearConv``.
* Not: scales and zero points of quantization, also those of ``Cast`` -> ``Sub`` -> ``Mul``; single numbers
  without a shape (an epsilon); initial states of LSTM, GRU and RNN; the scales of ``Resize``; and no int64,
  bool or string, which hold shapes, indices and masks.

A quantized number is non-zero where it differs from its zero point. A tensor counts once, however many nodes
use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.measure.stored import StoredTensor, unpack

if TYPE_CHECKING:
    import onnx

_FLOATS = {
    "FLOAT",
    "DOUBLE",
    "FLOAT16",
    "BFLOAT16",
    "FLOAT8E4M3FN",
    "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ",
    "FLOAT6E2M3",
    "FLOAT6E3M2",
    "FLOAT4E2M1",
}
_SMALL_INTEGERS = {"INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"}
_LARGE_INTEGERS = {"INT16", "UINT16", "INT32"}

# Inputs that are no weights: scales, zero points, initial states, sizes.
_NOT_WEIGHTS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3),
    "DynamicQuantizeLSTM": (5, 6, 8, 9, 10, 11),
    "MatMulNBits": (2, 3, 4),
    "LSTM": (5, 6),
    "GRU": (5,),
    "RNN": (5,),
    "Resize": (1, 2),
    "Upsample": (1,),
}
# Places of quantized weights and of their zero points.
_ZERO_POINT_OF = {
    "DequantizeLinear": ((0, 2),),
    "QLinearConv": ((3, 5),),
    "QLinearMatMul": ((3, 5),),
    "QGemm": ((3, 5),),
    "ConvInteger": ((1, 3),),
    "MatMulInteger": ((1, 3),),
    "MatMulIntegerToFloat": ((1, 5),),
    "DynamicQuantizeMatMul": ((1, 3),),
    "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
}
_INTEGER_BIAS = {"DequantizeLinear": 0, "QLinearConv": 8, "QGemm": 6}
# Operators that hand a stored tensor on, so that what follows is still about that tensor.
_PASSING = {"Cast", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Gather"}


@dataclass(eq=False)
class Weight:
    """A stored tensor and what its use tells about it.

    Attributes:
        tensor: The numbers as stored.
        dense_count: Numbers it stands for where that is not what is stored (sparse, packed by an operator).
        bits: Bits of each number where an operator reads bytes as several (MatMulNBits); else 0.
        zero_point: Its zero points, where they are stored.
        axis: Axis of per-channel or blocked zero points; None where it cannot be told.
        block: Numbers in a block along the axis; 0 if not blocked.
        not_weight: Used as scale, zero point and the like.
        for_floats: Integers that stand for floats.
    """

    tensor: StoredTensor
    dense_count: int | None = None
    bits: int = 0
    zero_point: StoredTensor | None = None
    axis: int | None = None
    block: int = 0
    not_weight: bool = False
    for_floats: bool = False

    @property
    def is_parameter(self) -> bool:
        """Whether its numbers count, by the rule of this module."""
        if self.not_weight or not self.tensor.shape:
            return False
        kind = self.tensor.type
        return kind in _FLOATS or kind in _SMALL_INTEGERS or (kind in _LARGE_INTEGERS and self.for_floats)

    @property
    def count(self) -> int:
        """Numbers that it stands for."""
        return self.tensor.count if self.dense_count is None else self.dense_count

    def nonzero(self) -> int:
        """Count the numbers that differ from zero, or from their zero point; reads them in pieces."""
        zeros = self._zeros()
        if zeros.size and not (zeros == zeros[0]).all():
            if self.axis is None:
                zeros = np.zeros(1, np.float32)
            else:
                return self._differing(zeros, self.axis)
        zero = zeros[0] if zeros.size else 0
        return sum(int(np.count_nonzero(piece != zero)) for piece in self._pieces())

    def _zeros(self) -> np.ndarray:
        """Its zero points, flat; float32 holds those of all types exactly."""
        if self.zero_point is None:
            return np.full(1, 1 << (self.bits - 1) if self.bits else 0, np.float32)
        pieces = list(self.zero_point.pieces())
        if self.bits and self.zero_point.type == "UINT8":
            pieces = [unpack(piece, self.bits, False) for piece in pieces]
        return np.concatenate([np.empty(0, np.float32), *(piece.astype(np.float32) for piece in pieces)])

    def _pieces(self) -> Iterator[np.ndarray]:
        for piece in self.tensor.pieces():
            yield unpack(piece, self.bits, False) if self.bits else piece

    def _differing(self, zeros: np.ndarray, axis: int) -> int:
        """Count what differs from zero points per channel, [channels], or blocked along the axis."""
        along = self.tensor.shape[axis]
        inner = math.prod(self.tensor.shape[axis + 1 :])
        if self.bits:
            along, inner = self.block * self.tensor.shape[1], 1
        blocks = -(-along // self.block) if self.block else 1
        if self.bits:  # MatMulNBits pads each row of packed zero points to a whole byte
            zeros = zeros.reshape(self.tensor.shape[0], -1)[:, :blocks].reshape(-1)
        start = found = 0
        for piece in self._pieces():
            flat = np.arange(start, start + piece.size)
            start += piece.size
            place = flat // inner % along
            if self.block:
                place = (flat // (inner * along) * blocks + place // self.block) * inner + flat % inner
            found += int(np.count_nonzero(piece != zeros[place]))
        return found


def find_weights(model: onnx.ModelProto, folder: Path) -> tuple[list[Weight], list[Path]]:
    """Find the tensors that hold parameters, in the graph, its subgraphs and the model's functions.

    Args:
        model: A model loaded without its external data.
        folder: Folder that external data is relative to.

    Returns:
        The weights, and the external data files that any tensor lies in, sorted.

    Raises:
        ModelError: External data is missing or too short, or a tensor is damaged.
        UnsafeError: External data points out of the folder.
    """
    finder = _Finder(folder)
    finder.graph(model.graph, _Scope(None))
    for function in model.functions:
        finder.nodes(function.node, _Scope(None))
    files = {weight.tensor.file for weight in finder.found if weight.tensor.file is not None}
    return [weight for weight in finder.found if weight.is_parameter], sorted(files)


class _Scope:
    """What the names of one graph stand for; a subgraph also sees the names around it."""

    def __init__(self, parent: _Scope | None) -> None:
        self._parent = parent
        self.stored: dict[str, Weight] = {}
        self.handed_on: dict[str, Weight] = {}
        self.dynamic_scales: set[str] = set()

    def direct(self, name: str) -> Weight | None:
        """The stored tensor of this name."""
        if name in self.stored or self._parent is None:
            return self.stored.get(name)
        return self._parent.direct(name)

    def root(self, name: str) -> Weight | None:
        """The stored tensor that a value is or was made of by operators that hand it on."""
        own = self.stored.get(name) or self.handed_on.get(name)
        return own if own is not None or self._parent is None else self._parent.root(name)


class _Finder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.found: list[Weight] = []

    def graph(self, graph: onnx.GraphProto, scope: _Scope) -> None:
        for tensor in graph.initializer:
            self._store(scope, tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self._store(scope, sparse.values.name, sparse.values, math.prod(sparse.dims))
        self.nodes(graph.node, scope)

    def nodes(self, nodes: Iterable[onnx.NodeProto], scope: _Scope) -> None:
        for node in nodes:
            if node.op_type == "Constant":
                self._constant(node, scope)
            else:
                self._use(node, scope)
            for attribute in node.attribute:
                for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                    self.graph(graph, _Scope(scope))

    def _store(self, scope: _Scope, name: str, proto: onnx.TensorProto, dense_count: int | None = None) -> None:
        weight = Weight(StoredTensor(proto, self._folder, name), dense_count)
        self.found.append(weight)
        scope.stored[name] = weight

    def _constant(self, node: onnx.NodeProto, scope: _Scope) -> None:
        for attribute in node.attribute:
            if attribute.name == "value":
                self._store(scope, node.output[0], attribute.t)
            elif attribute.name == "sparse_value":
                sparse = attribute.sparse_tensor
                self._store(scope, node.output[0], sparse.values, math.prod(sparse.dims))
            elif attribute.name == "value_floats":
                from onnx import numpy_helper

                numbers = np.array(attribute.floats, np.float32)
                self._store(scope, node.output[0], numpy_helper.from_array(numbers))

    def _use(self, node: onnx.NodeProto, scope: _Scope) -> None:
        kind = node.op_type
        roots = [scope.root(name) if name else None for name in node.input]

        def at(place: int) -> Weight | None:
            return roots[place] if place < len(roots) else None

        for place in _NOT_WEIGHTS.get(kind, ()):
            _mark(at(place))
        for place, zero_place in _ZERO_POINT_OF.get(kind, ()):
            weight, zero_point = at(place), at(zero_place)
            if weight is not None and zero_point is not None:
                weight.zero_point = zero_point.tensor
                if scope.direct(node.input[place]) is not None:
                    _place_zero_points(weight, node)
        bias = at(_INTEGER_BIAS[kind]) if kind in _INTEGER_BIAS else None
        if bias is not None:
            bias.for_floats = True
        if kind == "DynamicQuantizeLinear":
            scope.dynamic_scales.add(node.output[1])
        elif kind in ("Mul", "Div", "Sub"):
            self._decompress(node, scope, roots)
        elif kind in _PASSING and roots and roots[0] is not None:
            scope.handed_on[node.output[0]] = roots[0]
        elif kind == "MatMulNBits":
            _packed_by_operator(node, at(1), at(3))

    def _decompress(self, node: onnx.NodeProto, scope: _Scope, roots: list[Weight | None]) -> None:
        """See integers that are turned into floats by Cast, Sub of a zero point, Mul by a scale."""
        for weight, other, name in (
            (roots[0], roots[1], node.input[0]),
            (roots[1], roots[0], node.input[1]),
        ):
            if name in scope.dynamic_scales:
                _mark(other)
            if weight is None or weight.tensor.type in _FLOATS or scope.direct(name) is not None:
                continue
            if node.op_type == "Sub" and name != node.input[0]:
                continue
            weight.for_floats = True
            if other is not None:
                _mark(other)
            if node.op_type == "Sub":
                scope.handed_on[node.output[0]] = weight
                if other is not None:
                    weight.zero_point = other.tensor
                    weight.axis = _broadcast_axis(weight.tensor.shape, other.tensor.shape)
            return


def _mark(weight: Weight | None) -> None:
    if weight is not None:
        weight.not_weight = True


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _place_zero_points(weight: Weight, node: onnx.NodeProto) -> None:
    """Say which zero point belongs to which number of a weight that an operator takes directly."""
    if node.op_type == "DequantizeLinear":
        axis, weight.block = _attribute(node, "axis", 1), _attribute(node, "block_size", 0)
    else:
        axis = 0 if node.op_type in ("QLinearConv", "ConvInteger") else -1
    rank = len(weight.tensor.shape)
    weight.axis = axis % rank if rank and -rank <= axis < rank else None
    if weight.axis is None or weight.zero_point is None:
        return
    along = weight.tensor.shape[weight.axis]
    blocks = -(-along // weight.block) if weight.block else 0
    expected = weight.tensor.count // max(along, 1) * blocks if weight.block else along
    if weight.zero_point.count != expected:
        weight.axis = None


def _broadcast_axis(shape: tuple[int, ...], zeros: tuple[int, ...]) -> int | None:
    """The axis along which zero points of a shape like [C, 1, 1] vary."""
    wide = [axis - len(zeros) for axis, size in enumerate(zeros) if size > 1]
    if len(wide) != 1 or -wide[0] > len(shape) or shape[wide[0]] != zeros[wide[0]]:
        return None
    return len(shape) + wide[0]


def _packed_by_operator(node: onnx.NodeProto, weight: Weight | None, zero_point: Weight | None) -> None:
    """Read the bytes of MatMulNBits [N, blocks, bytes in a block] as the numbers that they hold."""
    if weight is None:
        return
    weight.bits = _attribute(node, "bits", 4)
    weight.dense_count = _attribute(node, "K", 0) * _attribute(node, "N", 0)
    weight.block = _attribute(node, "block_size", 32)
    weight.axis = 1
    if zero_point is not None:
        weight.zero_point = zero_point.tensor
