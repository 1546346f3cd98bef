"""A layer's weight as matrices, outputs by inputs, and back; and the rows of input that it is multiplied with.

Everything that judges single weights works on ``[groups, outputs, inputs]``. For a convolution the inputs of a group
are ordered kernel position first, channel last, so that neighbours are input channels at one kernel position: the
order in which sparse tensor cores count N of M.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graph.layers import Role, WeightUse
from modelkit.graph.tensors import attribute_int

MATRIX_ROLES = {Role.CONV_WEIGHT, Role.GEMM_WEIGHT, Role.MATMUL_WEIGHT, Role.RECURRENT_WEIGHT}
"""Parts that weights play which are matrices to be multiplied with."""


@dataclass(frozen=True)
class Layer:
    """A weight and how to see it as matrices.

    Attributes:
        use: The weight and the nodes that read it.
        shape: Shape of the weight as it is stored.
        groups: Matrices that share nothing: groups of a convolution, directions of a recurrence, a batch of products.
        outputs: Rows of each matrix.
        inputs: Columns of each matrix.
        run: Length of the runs of columns that are neighbouring input channels; divides ``inputs``.
    """

    use: WeightUse
    shape: tuple[int, ...]
    groups: int
    outputs: int
    inputs: int
    run: int

    @property
    def name(self) -> str:
        """Name of the weight."""
        return str(self.use.value.name)

    def array(self) -> np.ndarray:
        """Return the weight as it is stored now."""
        tensor = self.use.value.const_value
        assert tensor is not None
        return tensor.numpy()

    def matrices(self, array: np.ndarray) -> np.ndarray:
        """Turn an array of the weight's shape into ``[groups, outputs, inputs]`` (a view where that is possible)."""
        split, order = self._split()
        return array.reshape(split).transpose(order).reshape(self.groups, self.outputs, self.inputs)

    def stored(self, matrices: np.ndarray) -> np.ndarray:
        """Undo ``matrices``: from ``[groups, outputs, inputs]`` back to the weight's shape."""
        split, order = self._split()
        moved = matrices.reshape([split[axis] for axis in order])
        return np.ascontiguousarray(moved.transpose(np.argsort(order)).reshape(self.shape))

    def _split(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A shape that splits the weight's axes, and the order that brings groups first and inputs last."""
        shape, groups, axis = self.shape, self.groups, self.use.channel_axis
        if self.use.role == Role.CONV_WEIGHT:
            kernel = tuple(range(3, len(shape) + 1))
            if axis == 1:  # transposed: [inputs of all groups, outputs of one, kernel]
                return (groups, shape[0] // groups, *shape[1:]), (0, 2, *kernel, 1)
            return (groups, shape[0] // groups, *shape[1:]), (0, 1, *kernel, 2)
        if len(shape) == 2:
            return (1, *shape), (0, 1, 2) if axis == 0 else (0, 2, 1)
        # Batched products and recurrences: the matrices are the last two axes.
        last = axis == len(shape) - 1
        return (groups, *shape[-2:]), (0, 2, 1) if last else (0, 1, 2)


def layer_of(use: WeightUse) -> Layer:
    """Describe a weight in one of `MATRIX_ROLES` as matrices."""
    tensor = use.value.const_value
    assert tensor is not None and use.channel_axis is not None
    shape = tuple(int(d) for d in tensor.shape.numpy())
    if use.role == Role.CONV_WEIGHT:
        groups = attribute_int(use.consumers[0][0], "group", 1)
        channels = shape[0] // groups if use.channel_axis == 1 else shape[1]
        outputs = shape[1] if use.channel_axis == 1 else shape[0] // groups
        return Layer(use, shape, groups, outputs, channels * math.prod(shape[2:]), channels)
    groups = math.prod(shape[:-2])
    outputs = shape[use.channel_axis]
    inputs = shape[-1] if use.channel_axis == len(shape) - 2 else shape[-2]
    return Layer(use, shape, groups, outputs, inputs, inputs)


@dataclass(frozen=True)
class Reading:
    """How one node multiplies its input with a weight.

    Attributes:
        node: The node.
        source: Name of the value in the main graph that holds the input.
        key: Two readings with the same key see the same columns.
    """

    node: ir.Node
    source: str
    key: tuple[object, ...]
    groups: int
    kernel: tuple[int, ...] = ()
    recurrent: bool = False
    columns_last: bool = True

    def rows(self, values: np.ndarray) -> int:
        """Count the rows of columns that values of the source give."""
        if self.kernel:
            return len(values) * math.prod(_geometry(self.node, self.kernel, values.shape[2:])[1])
        if self.recurrent:
            return max(len(values) - 1, 0) * values.shape[2]
        return values.size // values.shape[-1 if self.columns_last else -2]

    def columns(self, values: np.ndarray, picked: np.ndarray | None = None) -> np.ndarray:
        """Return what the weight's matrices are multiplied with.

        Args:
            values: Values of the source for a batch.
            picked: Which rows to return, by number; None for all.

        Returns:
            ``[rows, groups, inputs]``: the layer's output, without its bias, is ``einsum('ngk,gok->ngo')`` of this
            and the matrices of its weight.
        """
        if self.kernel:
            return _unfold(self.node, self.kernel, self.groups, values, picked)
        if self.recurrent:
            rows = _previous_states(self.node, values).reshape(-1, self.groups, values.shape[-1])
            return rows if picked is None else rows[picked]
        flat = values if self.columns_last else np.swapaxes(values, -1, -2)
        flat = flat.reshape(-1, flat.shape[-1])
        flat = flat if picked is None else flat[picked]
        return np.broadcast_to(flat[:, None, :], (len(flat), self.groups, flat.shape[1]))


def readings_of(layer: Layer, model: ir.Model) -> list[Reading] | str:
    """Find out how a layer's inputs can be observed.

    Returns:
        One reading for each node that reads the weight, or the reason why they cannot be observed.
    """
    if sum(1 for _ in layer.use.value.uses()) != len(layer.use.consumers):
        return "the weight is also read in another way"
    found: list[Reading] = []
    for node, index in layer.use.consumers:
        reading = _reading(layer, node, index)
        if isinstance(reading, str):
            return reading
        if node.graph is not model.graph:
            return "the layer runs inside a branch or loop"
        found.append(reading)
    return found


def _reading(layer: Layer, node: ir.Node, index: int) -> Reading | str:
    if layer.use.role == Role.RECURRENT_WEIGHT:
        return _recurrent_reading(layer, node, index)
    if len(node.inputs) < 2:
        return "the layer has no other input"
    source = node.inputs[1 - index] if layer.use.role != Role.CONV_WEIGHT else node.inputs[0]
    if source is None or source.name is None or source.is_initializer():
        return "the layer's input is a constant"
    name = str(source.name)
    if layer.use.role == Role.CONV_WEIGHT:
        if node.op_type not in ("Conv", "FusedConv"):
            return f"the inputs of {node.op_type} cannot be unfolded"
        kernel = layer.shape[2:]
        attributes = tuple(str(node.attributes[key].value) for key in _CONV_KEYS if key in node.attributes)
        return Reading(node, name, (name, "conv", kernel, layer.groups, attributes), layer.groups, kernel)
    if len(layer.shape) != 2:
        return "a batch of matrices multiplies its inputs"
    if attribute_int(node, "transBatchA", 0) or attribute_int(node, "transBatchB", 0):
        return "the product moves the batch axis"
    # For Y = X W the columns are X's last axis; for Y = W X they are the last but one.
    flipped = bool(attribute_int(node, "transA" if index else "transB", 0))
    last = bool(index) != flipped
    return Reading(node, name, (name, "product", last), 1, columns_last=last)


def _recurrent_reading(layer: Layer, node: ir.Node, index: int) -> Reading | str:
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        return "its sequences differ in length"
    if index == 1:
        source = node.inputs[0]
        if source is None or source.is_initializer():
            return "the layer's input is a constant"
        return Reading(node, str(source.name), (source.name, "inputs", layer.groups), layer.groups)
    if node.op_type == "LSTM" and len(node.inputs) > 7 and node.inputs[7] is not None:
        return "peepholes read the state too"
    if node.op_type == "GRU" and not attribute_int(node, "linear_before_reset", 0):
        return "the reset gate changes the state before the weight reads it"
    states = node.outputs[0] if node.outputs else None
    if states is None or not states.name or attribute_int(node, "layout", 0):
        return "the states of the recurrence are not in the graph"
    return Reading(node, str(states.name), (states.name, "states"), layer.groups, recurrent=True)


def _previous_states(node: ir.Node, states: np.ndarray) -> np.ndarray:
    """What the recurrent weight was multiplied with: ``[time, directions, batch, hidden]`` moved by one step.

    The first step, whose state is most often zero, is left out: it would add nothing to a sum of squares.
    """
    direction = node.attributes.get_string("direction", "forward") if node.attributes else "forward"
    before, after = states[:-1], states[1:]
    parts = {"forward": [before[:, :1]], "reverse": [after[:, :1]]}
    chosen = parts.get(str(direction), [before[:, :1], after[:, 1:2]])
    return np.ascontiguousarray(np.concatenate(chosen, axis=1).transpose(0, 2, 1, 3))


_CONV_KEYS = ("auto_pad", "pads", "strides", "dilations")


def _geometry(
    node: ir.Node, kernel: Sequence[int], size: Sequence[int]
) -> tuple[list[tuple[int, int]], tuple[int, ...], list[int], list[int]]:
    """Padding before and after, output size, strides and dilations of a convolution over an input of some size."""
    rank = len(kernel)
    strides = list(node.attributes.get_ints("strides", [1] * rank))
    dilations = list(node.attributes.get_ints("dilations", [1] * rank))
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    auto = str(node.attributes.get_string("auto_pad", "NOTSET"))
    if auto.startswith("SAME"):
        out = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        total = [max(0, (o - 1) * s + r - n) for o, s, r, n in zip(out, strides, reach, size, strict=True)]
        halves = [(t // 2, t - t // 2) for t in total]
        pads = halves if auto == "SAME_UPPER" else [(b, a) for a, b in halves]
    else:
        flat = [0] * (2 * rank) if auto == "VALID" else list(node.attributes.get_ints("pads", [0] * (2 * rank)))
        pads = list(zip(flat[:rank], flat[rank:], strict=True))
    out = [(n + a + b - r) // s + 1 for n, (a, b), r, s in zip(size, pads, reach, strides, strict=True)]
    return pads, tuple(out), strides, dilations


def _unfold(
    node: ir.Node, kernel: tuple[int, ...], groups: int, values: np.ndarray, picked: np.ndarray | None
) -> np.ndarray:
    """im2col with channels last: ``[rows, groups, kernel positions * channels of a group]``."""
    pads, out, strides, dilations = _geometry(node, kernel, values.shape[2:])
    channels = values.shape[1]
    moved = np.pad(np.moveaxis(values, 1, -1), [(0, 0), *pads, (0, 0)])
    numbers = np.arange(len(values) * math.prod(out)) if picked is None else picked
    sample, *place = np.unravel_index(numbers, (len(values), *out))
    parts = []
    for offset in np.ndindex(*kernel):
        at = tuple(p * s + o * d for p, s, o, d in zip(place, strides, offset, dilations, strict=True))
        parts.append(moved[(sample, *at)].reshape(len(numbers), groups, channels // groups))
    return np.stack(parts, axis=2).reshape(len(numbers), groups, -1)
