"""Which initializers are trained, which are running statistics, and which stay the constants that they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.layers import Role, role_of
from modelkit.graph.tensors import FLOATS

# Parts that are always trained, whatever their size.
_TRAINED = {
    *(Role.CONV_WEIGHT, Role.GEMM_WEIGHT, Role.MATMUL_WEIGHT, Role.RECURRENT_WEIGHT),
    *(Role.EMBEDDING, Role.NORM),
}
# Inputs that hold no weight: bounds, scales, masks, first states, tables of angles. None stands for all.
_NO_WEIGHT: dict[str, tuple[int, ...] | None] = {
    "Attention": (3, 4, 5, 6),
    "Clip": (1, 2),
    "CastLike": (1,),
    "CumSum": None,
    "DFT": None,
    "DequantizeLinear": None,
    "Dropout": (1,),
    "Equal": None,
    "GRU": (4, 5),
    "Greater": None,
    "GreaterOrEqual": None,
    "GridSample": (1,),
    "LSTM": (4, 5, 6),
    "Less": None,
    "LessOrEqual": None,
    "Mod": None,
    "NegativeLogLikelihoodLoss": (2,),
    "NonZero": None,
    "OneHot": None,
    "Pad": (2,),
    "Pow": (1,),
    "QuantizeLinear": None,
    "RNN": (4, 5),
    "Range": None,
    "Resize": (1, 2),
    "RotaryEmbedding": (1, 2),
    "STFT": None,
    "Shape": None,
    "Size": None,
    "SoftmaxCrossEntropyLoss": (2,),
    "Upsample": (1,),
    "Where": None,
}
# Nodes that only reorder or rename: what reads their result decides.
_VIEWS = {
    *("Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"),
    "Unsqueeze",
}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
# A trained number is never this large: it marks what a mask hides.
_MASK = 1e4


def trained(graph: ir.Graph) -> list[ir.Value]:
    """List the float initializers that become parameters, in the order in which they are stored.

    Weights, scales and shifts of norms, and tables of embeddings always do, biases unless they are masks
    (infinite or huge numbers). Anything else does if it has two numbers or more, unless every node that
    reads it takes it for something that is no weight (a bound, a scale of quantization, a first state),
    or it is a mask (a matrix of zeros and ones is one too), or it only shifts or scales an input of the
    graph (as the mean and deviation of images do). Running statistics are not among them.
    """
    statistics = {id(v) for v in running_statistics(graph)}
    return [v for v in graph.initializers.values() if id(v) not in statistics and _is_trained(v)]


def running_statistics(graph: ir.Graph) -> list[ir.Value]:
    """List the means and variances that BatchNormalization nodes keep, in the order of the nodes."""
    found: dict[int, ir.Value] = {}
    for node in graph:
        if node.op_type == "BatchNormalization" and not node.domain:
            for value in node.inputs[3:5]:
                if value is not None and value.is_initializer():
                    found[id(value)] = value
    return list(found.values())


def _is_trained(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype not in FLOATS:
        return False
    uses = list(value.uses())
    roles = {_role(value, node, index) for node, index in uses}
    if roles & _TRAINED:
        return True
    if Role.BIAS in roles:
        return not _hides(tensor.numpy().astype(np.float64))
    if not any(_may_hold_weight(node, index, 0) for node, index in uses):
        return False
    if tensor.size < 2:
        return any(node.op_type == "PRelu" and index == 1 for node, index in uses)
    return not _is_mask(tensor.numpy().astype(np.float64))


def _role(value: ir.Value, node: ir.Node, index: int) -> Role:
    if value.is_graph_input():  # a default that a caller could replace: its part is the same
        products = ("Conv", "Gemm", "MatMul")
        return Role.CONV_WEIGHT if node.op_type in products and index == 1 and not node.domain else Role.OTHER
    return role_of(value, node, index)[0]


def _may_hold_weight(node: ir.Node, index: int, depth: int) -> bool:
    """Whether a node's input is in a place where a weight may be, looking through views."""
    if node.op_type in _NO_WEIGHT:
        places = _NO_WEIGHT[node.op_type]
        return places is not None and index not in places
    if node.op_type in _ARITHMETIC and len(node.inputs) == 2:
        other = node.inputs[1 - index]
        return other is None or not other.is_graph_input() or other.is_initializer()
    if node.op_type in _VIEWS and depth < 8:
        if node.op_type in ("Expand", "Reshape", "Slice", "Squeeze", "Unsqueeze") and index > 0:
            return False
        below = [use for output in node.outputs for use in output.uses()]
        if not below:
            return any(output.is_graph_output() for output in node.outputs)
        return any(_may_hold_weight(reader, place, depth + 1) for reader, place in below)
    return True


def _hides(numbers: np.ndarray) -> bool:
    return numbers.size > 0 and (not np.isfinite(numbers).all() or float(np.abs(numbers).max()) >= _MASK)


def _is_mask(numbers: np.ndarray) -> bool:
    return _hides(numbers) or (numbers.ndim > 1 and bool(np.isin(numbers, (0.0, 1.0)).all()))
