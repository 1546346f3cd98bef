"""Bias correction: make up for the mean shift that rounding a layer's weights gives its outputs.

Rounding changes W to W + ε, so the mean output moves by ε·E[x]; subtracting that from the bias restores it
(Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.2, here with E[x] measured on calibration data).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graph.edit import Namer, add_initializer, owner_of
from modelkit.quantize.plan import Plan


class ChannelMeans:
    """Running means of activations over everything but the channel axis.

    Args:
        plan: The layers whose inputs are of interest.
    """

    def __init__(self, plan: Plan) -> None:
        self._axes: dict[str, int] = {}
        for node in plan.nodes:
            if node.op_type in ("Conv", "Gemm", "MatMul") and node.inputs[0] is not None:
                self._axes[str(node.inputs[0].name)] = 1 if node.op_type == "Conv" else -1
        self._sums: dict[str, np.ndarray] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, values: np.ndarray) -> None:
        """Take in one batch of a tensor."""
        if name not in self._axes or values.ndim < 2:
            return
        axis = self._axes[name] % values.ndim
        others = tuple(a for a in range(values.ndim) if a != axis)
        total = values.sum(axis=others, dtype=np.float64)
        self._sums[name] = self._sums.get(name, 0) + total
        self._counts[name] = self._counts.get(name, 0) + values.size // values.shape[axis]

    def get(self, name: str) -> np.ndarray | None:
        """Mean of each channel, float64; None where the tensor was not seen."""
        return self._sums[name] / self._counts[name] if name in self._sums else None


def shift_of(node: ir.Node, error: np.ndarray, means: np.ndarray) -> np.ndarray | None:
    """Mean shift of each output channel.

    Args:
        node: A Conv, Gemm or MatMul.
        error: Quantized minus float weight, in the weight's shape.
        means: Mean of each input channel.

    Returns:
        Float64, one number for each output channel; None where shapes do not match.
    """
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        outputs, inputs = error.shape[0], error.shape[1]
        if means.size != inputs * groups:
            return None
        # The mean of a zero-padded border is a little smaller; it is left out of account, as in the paper.
        by_channel = error.astype(np.float64).sum(axis=tuple(range(2, error.ndim)))
        grouped = by_channel.reshape(groups, outputs // groups, inputs)
        return np.einsum("goi,gi->go", grouped, means.reshape(groups, inputs)).reshape(-1)
    matrix = error.astype(np.float64)
    if node.op_type == "Gemm" and node.attributes.get_int("transB", False):
        matrix = matrix.T
    return means @ matrix if matrix.shape[0] == means.size else None


def subtract_from_bias(node: ir.Node, shift: np.ndarray, namer: Namer) -> bool:
    """Subtract a shift from the bias of a Conv or Gemm, adding one where there is none.

    Returns:
        False for layers without room for a bias (MatMul).
    """
    if node.op_type not in ("Conv", "Gemm"):
        return False
    weight = node.inputs[1]
    assert weight is not None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    graph = owner_of(bias if bias is not None else weight)
    if bias is not None:
        old = bias.const_value.numpy().astype(np.float64).reshape(-1)  # type: ignore[union-attr]
        name = namer(f"{bias.name}.corrected")
    else:
        old, name = np.zeros(1), namer(f"{weight.name}.bias")
    corrected = add_initializer(graph, name, (old - shift).astype(np.float32))
    if len(node.inputs) > 2:
        node.replace_input_with(2, corrected)
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, corrected)
    return True
