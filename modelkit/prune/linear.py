"""Layers that multiply by a constant weight, seen as plain matrices: rows of inputs times a weight per group."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graph.tensors import attribute_float, attribute_int, constant_of


@dataclass(frozen=True)
class Linear:
    """A Conv, Gemm or MatMul whose output is ``rows @ matrix.T + bias``, group by group.

    Attributes:
        node: The node.
        weight: Its constant weight.
        data: Its other operand.
        output: What it computes.
        groups: Groups of a convolution; 1 for products.
        axis: Axis of the output that counts the channels: 1 for convolutions, -1 for products.
    """

    node: ir.Node
    weight: ir.Value
    data: ir.Value
    output: ir.Value
    groups: int
    axis: int

    @property
    def name(self) -> str:
        """What a report calls the layer: its weight."""
        return str(self.weight.name)

    def matrix(self) -> np.ndarray:
        """The weight as ``[groups, outputs of a group, columns]``, float64."""
        weight = self.weight.const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
        if self.axis == 1:
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        if not _transposed(self.node):
            weight = weight.T
        return attribute_float(self.node, "alpha", 1.0) * weight[None]

    def put(self, matrix: np.ndarray) -> None:
        """Write a matrix of the same shape back into the weight."""
        old = self.weight.const_value
        assert old is not None
        new = matrix.reshape(old.shape.numpy()) if self.axis == 1 else matrix[0]
        if self.axis != 1:
            new = new / attribute_float(self.node, "alpha", 1.0)
            new = new if _transposed(self.node) else new.T
        array = np.ascontiguousarray(new, dtype=old.dtype.numpy())
        self.weight.const_value = ir.tensor(array, dtype=old.dtype, name=self.weight.name)

    def columns_of(self, channels: np.ndarray) -> np.ndarray:
        """Columns of the matrix that positions along the weight's input axis take up, ``[channels, k]``."""
        kernel = math.prod(self.weight.const_value.shape.numpy()[2:]) if self.axis == 1 else 1  # type: ignore[union-attr]
        return channels[:, None] * kernel + np.arange(kernel)

    def rows(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Rows of inputs, one for each chosen output position.

        Args:
            values: What flows in, ``[samples, channels, ...]`` for a convolution, ``[..., columns]`` for a product.
            chosen: Positions counted through samples and output positions, in ``[0, positions(...))``.

        Returns:
            ``[groups, chosen, columns]``, float32 or what came in.
        """
        if self.axis != 1:
            return values.reshape(-1, values.shape[-1])[chosen][None]
        return _patches(self.node, values, tuple(self._kernel()), self.groups, chosen)

    def outputs(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Rows of outputs that belong to ``rows``: ``[chosen, channels]``."""
        if self.axis == 1:
            values = np.moveaxis(values, 1, -1)
        return values.reshape(-1, values.shape[-1])[chosen]

    def _kernel(self) -> list[int]:
        return [int(size) for size in self.weight.const_value.shape.numpy()[2:]]  # type: ignore[union-attr]


def linear_of(node: ir.Node) -> Linear | None:
    """See a node as a matrix product, or None where it is none (or has no constant weight)."""
    if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    data, weight = node.inputs[0], node.inputs[1]
    tensor = constant_of(weight)
    if data is None or weight is None or tensor is None or not weight.is_initializer():
        return None
    if constant_of(data) is not None or not tensor.dtype.is_floating_point():
        return None
    rank = len(tensor.shape)
    if node.op_type == "Conv":
        return Linear(node, weight, data, node.outputs[0], attribute_int(node, "group", 1), 1) if rank > 2 else None
    if rank != 2 or attribute_int(node, "transA", 0):
        return None
    return Linear(node, weight, data, node.outputs[0], 1, -1)


def _transposed(node: ir.Node) -> bool:
    """Whether a product's weight is stored as [outputs, inputs]."""
    return bool(attribute_int(node, "transB", 0))


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return default if attribute is None else [int(value) for value in attribute.as_ints()]


def _patches(
    node: ir.Node, values: np.ndarray, kernel: tuple[int, ...], groups: int, chosen: np.ndarray
) -> np.ndarray:
    """What a convolution's kernel sees at chosen output positions: ``[groups, chosen, columns]``."""
    rank = len(kernel)
    strides = _ints(node, "strides", [1] * rank)
    dilations = _ints(node, "dilations", [1] * rank)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    pads = _pads(node, values.shape[2:], strides, reach)
    padded = np.pad(values, [(0, 0), (0, 0), *pads])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))  # type: ignore[call-overload]
    steps = tuple(slice(None, None, s) for s in strides)
    taps = tuple(slice(None, None, d) for d in dilations)
    windows = windows[(slice(None), slice(None), *steps, *taps)]
    places = np.unravel_index(chosen, (windows.shape[0], *windows.shape[2 : 2 + rank]))
    # Indexing with arrays on both sides of a slice puts the chosen positions first: [chosen, channels, kernel...].
    picked = windows[(places[0], slice(None), *places[1:])]
    rows = picked.reshape(len(chosen), groups, -1)
    return np.moveaxis(rows, 1, 0)


def _pads(node: ir.Node, sizes: tuple[int, ...], strides: list[int], reach: list[int]) -> list[tuple[int, int]]:
    """Zeros before and after each spatial axis."""
    attribute = node.attributes.get("auto_pad")
    auto = "NOTSET" if attribute is None else attribute.as_string()
    rank = len(strides)
    if auto == "VALID":
        return [(0, 0)] * rank
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, stride, span in zip(sizes, strides, reach, strict=True):
            total = max((-(-size // stride) - 1) * stride + span - size, 0)
            small, large = total // 2, total - total // 2
            found.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return found
    pads = _ints(node, "pads", [0] * (2 * rank))
    return [(pads[axis], pads[axis + rank]) for axis in range(rank)]
