"""Multiply-accumulates of one node, from its shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from modelkit.graph.tensors import attribute_int

Shape = tuple[int, ...]


class UnknownShape(Exception):  # noqa: N818 - not an error that anyone meets
    """A shape that the count needs is not known."""


class Shapes:
    """Looks up the shapes of a node's inputs and outputs.

    Args:
        known: Shapes by value.
    """

    def __init__(self, known: Mapping[ir.Value, Shape]) -> None:
        self._known = known

    def of(self, value: ir.Value | None) -> Shape:
        """Return a value's shape.

        Raises:
            UnknownShape: It is not known.
        """
        if value is None or value not in self._known:
            raise UnknownShape
        return self._known[value]

    def input(self, node: ir.Node, index: int) -> Shape:
        """Return the shape of an input of a node (see ``of``)."""
        return self.of(node.inputs[index] if index < len(node.inputs) else None)

    def output(self, node: ir.Node) -> Shape:
        """Return the shape of a node's first output (see ``of``)."""
        return self.of(node.outputs[0])


def node_macs(node: ir.Node, shapes: Shapes) -> int:
    """Count the multiply-accumulates of one node; 0 for what is no convolution, product or attention.

    Bias, activation, pooling and normalisation count as 0, as is usual.

    Raises:
        UnknownShape: A shape that the count needs is not known.
    """
    count = _COUNTERS.get((node.domain, node.op_type))
    return count(node, shapes) if count is not None else 0


def _conv(weight_index: int) -> Callable[[ir.Node, Shapes], int]:
    """Each output element reads one group's input channels times the kernel: W is [M, C/group, k...]."""

    def count(node: ir.Node, shapes: Shapes) -> int:
        weight = shapes.input(node, weight_index)
        return math.prod(_conv_output(node, shapes, weight)) * math.prod(weight[1:])

    return count


def _conv_output(node: ir.Node, shapes: Shapes, weight: Shape) -> Shape:
    """The output's shape; computed where shape inference does not know the operator."""
    try:
        return shapes.output(node)
    except UnknownShape:
        data = shapes.input(node, 0)
        rank = len(weight) - 2
        strides = _ints(node, "strides", (1,) * rank)
        dilations = _ints(node, "dilations", (1,) * rank)
        pads = _ints(node, "pads", (0,) * (2 * rank))
        auto = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
        spatial = []
        for axis in range(rank):
            size = data[2 + axis]
            if auto.startswith("SAME"):
                spatial.append(-(-size // strides[axis]))
                continue
            reach = dilations[axis] * (weight[2 + axis] - 1) + 1
            spatial.append((size + pads[axis] + pads[axis + rank] - reach) // strides[axis] + 1)
        return (data[0], weight[0], *spatial)


def _conv_transpose(node: ir.Node, shapes: Shapes) -> int:
    """Each input element goes to one group's output channels times the kernel: W is [C, M/group, k...]."""
    return math.prod(shapes.input(node, 0)) * math.prod(shapes.input(node, 1)[1:])


def _gemm(b_index: int) -> Callable[[ir.Node, Shapes], int]:
    def count(node: ir.Node, shapes: Shapes) -> int:
        a, b = shapes.input(node, 0), shapes.input(node, b_index)
        columns = b[0] if attribute_int(node, "transB", 0) else b[1]
        return math.prod(a) * columns

    return count


def _matmul(b_index: int) -> Callable[[ir.Node, Shapes], int]:
    """Batched product [..., M, K] x [..., K, N], batch dimensions broadcast as numpy does."""

    def count(node: ir.Node, shapes: Shapes) -> int:
        a, b = shapes.input(node, 0), shapes.input(node, b_index)
        if len(a) > 1 and attribute_int(node, "transA", 0):
            a = (*a[:-2], a[-1], a[-2])
        if len(b) > 1 and attribute_int(node, "transB", 0):
            b = (*b[:-2], b[-1], b[-2])
        rows = a[-2] if len(a) > 1 else 1
        columns = b[-1] if len(b) > 1 else 1
        return math.prod(_broadcast(a[:-2], b[:-2])) * rows * a[-1] * columns

    return count


def _matmul_nbits(node: ir.Node, shapes: Shapes) -> int:
    return math.prod(shapes.input(node, 0)) * attribute_int(node, "N", 0)


def _recurrent(node: ir.Node, shapes: Shapes) -> int:
    """For each step, all of W [dirs, gates*hidden, input] and of R [dirs, gates*hidden, hidden]."""
    steps_and_batch = math.prod(shapes.input(node, 0)[:2])
    return steps_and_batch * (math.prod(shapes.input(node, 1)) + math.prod(shapes.input(node, 2)))


def _einsum(node: ir.Node, shapes: Shapes) -> int:
    """Product of the sizes of all indices, once for each operand after the first."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    operands = equation.split("->")[0].split(",")
    if "." in equation:
        raise UnknownShape
    sizes: dict[str, int] = {}
    for index, letters in enumerate(operands):
        for letter, size in zip(letters, shapes.input(node, index), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values()) * (len(operands) - 1)


def _attention(node: ir.Node, shapes: Shapes) -> int:
    """ai.onnx Attention: Q K^T and the product with V; 3-D inputs [B, L, heads*d] or 4-D [B, heads, L, d]."""
    query, key, value = (shapes.input(node, i) for i in range(3))
    past = _past_length(node, shapes)
    if len(query) == 4:
        batch, heads, length, depth = query
        return batch * heads * length * (key[2] + past) * (depth + value[3])
    heads, kv_heads = attribute_int(node, "q_num_heads", 1), attribute_int(node, "kv_num_heads", 1)
    depth, value_depth = query[2] // heads, value[2] // kv_heads
    return query[0] * heads * query[1] * (key[1] + past) * (depth + value_depth)


def _past_length(node: ir.Node, shapes: Shapes) -> int:
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        return shapes.input(node, 4)[2]
    return 0


def _multi_head_attention(node: ir.Node, shapes: Shapes) -> int:
    """com.microsoft MultiHeadAttention on separate inputs [B, L, heads*d]."""
    query, key, value = (shapes.input(node, i) for i in range(3))
    if len(query) != 3 or len(key) != 3 or len(value) != 3:
        raise UnknownShape
    return query[0] * query[1] * key[1] * (query[2] + value[2])


def _packed_attention(node: ir.Node, shapes: Shapes) -> int:
    """com.microsoft Attention: input [B, L, D] times weights [D, 3*H], then attention over H."""
    data, weight = shapes.input(node, 0), shapes.input(node, 1)
    hidden = weight[1] // 3
    return math.prod(data) * weight[1] + 2 * data[0] * data[1] * data[1] * hidden


def _ints(node: ir.Node, name: str, default: Shape) -> Shape:
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else default


def _broadcast(a: Shape, b: Shape) -> Shape:
    width = max(len(a), len(b))
    pairs = zip((1,) * (width - len(a)) + a, (1,) * (width - len(b)) + b, strict=True)
    return tuple(x if y == 1 else y for x, y in pairs)


_MS = "com.microsoft"
_COUNTERS: dict[tuple[str, str], Callable[[ir.Node, Shapes], int]] = {
    ("", "Conv"): _conv(1),
    ("", "DeformConv"): _conv(1),
    ("", "ConvInteger"): _conv(1),
    ("", "QLinearConv"): _conv(3),
    (_MS, "QLinearConv"): _conv(3),
    (_MS, "FusedConv"): _conv(1),
    ("", "ConvTranspose"): _conv_transpose,
    ("", "Gemm"): _gemm(1),
    (_MS, "FusedGemm"): _gemm(1),
    (_MS, "QGemm"): _gemm(3),
    ("", "MatMul"): _matmul(1),
    ("", "MatMulInteger"): _matmul(1),
    ("", "QLinearMatMul"): _matmul(3),
    (_MS, "FusedMatMul"): _matmul(1),
    (_MS, "MatMulIntegerToFloat"): _matmul(1),
    (_MS, "DynamicQuantizeMatMul"): _matmul(1),
    (_MS, "MatMulNBits"): _matmul_nbits,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    (_MS, "DynamicQuantizeLSTM"): _recurrent,
    ("", "Einsum"): _einsum,
    ("", "Attention"): _attention,
    (_MS, "MultiHeadAttention"): _multi_head_attention,
    (_MS, "Attention"): _packed_attention,
}
