"""Dynamic int8: activations are quantized as they come, at run time; no data needed.

MatMul and Gemm become MatMulInteger between DynamicQuantizeLinear and a scale (onnxruntime fuses the three);
LSTM becomes onnxruntime's DynamicQuantizeLSTM. Convolutions are left alone: onnxruntime's dynamic convolution is
slower than float.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node, owner_of
from modelkit.graph.patterns import check_patterns, chosen
from modelkit.progress import Progress, silent
from modelkit.quantize.affine import Quantized, dequantize, quantize_array, sqnr_db
from modelkit.quantize.config import WeightOptions, plain_rounding
from modelkit.quantize.gemm import gemms_to_matmul

MICROSOFT = "com.microsoft"


def quantize_dynamic(
    model: ir.Model,
    *,
    weight_bits: int,
    options: WeightOptions,
    include: Sequence[str],
    exclude: Sequence[str],
    progress: Progress = silent,
) -> list[Decision]:
    """Let matrix products and LSTMs compute with integers, in place. The opset must be 11 or more.

    Args:
        model: A normalised model.
        weight_bits: 8, or 7 on processors whose kernels saturate (AVX2 without VNNI).
        options: Granularity, scale search and rounding of weights; always symmetric here.
        include: Name patterns; empty means all.
        exclude: Name patterns of what stays float.
        progress: Called once for each node.

    Returns:
        A decision for every node that multiplies by a weight.

    Raises:
        UsageError: A pattern matches nothing.
    """
    gemms_to_matmul(model)
    nodes = [node for node in model.graph.all_nodes() if node.op_type in _MULTIPLIES and node.domain == ""]
    names = [name for node in nodes for name in _names(node)]
    check_patterns(include, names, "include")
    check_patterns(exclude, names, "exclude")
    namer = Namer(model)
    rewriter = _Rewriter(model, weight_bits, options, namer)
    decisions: list[Decision] = []
    for index, node in enumerate(nodes):
        progress("quantizing layers", index, len(nodes))
        decisions.append(_decide(node, include, exclude, rewriter))
    drop_unused_initializers(model)
    return decisions


_MULTIPLIES = {"MatMul", "Gemm", "LSTM", "GRU", "RNN", "Conv", "ConvTranspose"}


def _names(node: ir.Node) -> list[str]:
    weight = node.inputs[1]
    return [name for name in (node.name, weight.name if weight is not None else None) if name]


def _decide(node: ir.Node, include: Sequence[str], exclude: Sequence[str], rewriter: _Rewriter) -> Decision:
    label = str(node.name or node.outputs[0].name)
    weight = node.inputs[1]
    if node.op_type in ("Conv", "ConvTranspose"):
        return Decision(label, "kept float", "a dynamic convolution is slower than a float one in onnxruntime")
    if node.op_type in ("GRU", "RNN"):
        return Decision(label, "kept float", f"onnxruntime has no dynamic integer kernel for {node.op_type}")
    if weight is None or not weight.is_initializer():
        left = node.inputs[0] is not None and node.inputs[0].is_initializer()
        return Decision(
            label, "kept float", "its left operand is the constant" if left else "multiplies two activations"
        )
    if node.op_type == "Gemm":
        return Decision(
            label, "kept float", "a Gemm that scales or transposes, or shares its weight with other layers"
        )
    if weight.const_value is None or weight.const_value.dtype != ir.DataType.FLOAT:
        return Decision(label, "kept float", "its weight is not float32")
    reason = chosen(_names(node), include, exclude)
    if reason is not None:
        return Decision(label, "kept float", reason)
    if node.op_type == "LSTM":
        return rewriter.lstm(node, label)
    if len(weight.const_value.shape) != 2:
        return Decision(label, "kept float", "its weight is not a matrix")
    return rewriter.matmul(node, label)


# A weight's integers, scales and zero points in the graph, and the numbers of its decision.
_Written = tuple[ir.Value, ir.Value, ir.Value, dict[str, float | int | str]]


class _Rewriter:
    """Rewrites nodes one by one and shares what several of them need.

    Args:
        model: The model that is rewritten.
        weight_bits: Bits of weights.
        options: How weights are quantized.
        namer: Names of the model.
    """

    def __init__(self, model: ir.Model, weight_bits: int, options: WeightOptions, namer: Namer) -> None:
        self._model, self._bits, self._options, self._namer = model, weight_bits, options, namer
        self._activations: dict[tuple[int, int], tuple[ir.Value, ...]] = {}
        self._weights: dict[int, _Written] = {}
        self._recurrent: dict[int, _Written] = {}

    def matmul(self, node: ir.Node, label: str) -> Decision:
        """x·W becomes MatMulInteger(q(x), q(W)) · (scale_x · scale_W)."""
        graph, activation, weight, output = node.graph, node.inputs[0], node.inputs[1], node.outputs[0]
        assert graph is not None and activation is not None and weight is not None
        if activation.dtype not in (None, ir.DataType.FLOAT):
            return Decision(label, "kept float", "its input is not float32")
        array = weight.const_value.numpy()  # type: ignore[union-attr]
        xq, xs, xz = self._quantized_activation(graph, node, activation)
        wq, ws, wz, numbers = self._quantized_weight(weight, array)
        namer = self._namer
        product = make_node(
            "MatMulInteger",
            [xq, wq, xz, wz],
            [namer(f"{label}.product")],
            name=namer(f"{label}.integer"),
            dtype=ir.DataType.INT32,
            shapes=[output.shape],
        )
        cast = make_node(
            "Cast",
            [product.outputs[0]],
            [namer(f"{label}.sum")],
            name=namer(f"{label}.cast"),
            attributes={"to": int(ir.DataType.FLOAT)},
            shapes=[output.shape],
        )
        scale = make_node("Mul", [xs, ws], [namer(f"{label}.scales")], name=namer(f"{label}.scale"))
        result = make_node(
            "Mul",
            [cast.outputs[0], scale.outputs[0]],
            [str(output.name)],
            name=label,
            shapes=[output.shape],
        )
        new = [product, cast, scale, result]
        ir.convenience.replace_nodes_and_values(graph, node, [node], new, [output], [result.outputs[0]])
        return Decision(label, "int8", "MatMul with activations quantized at run time", numbers)

    def lstm(self, node: ir.Node, label: str) -> Decision:
        """LSTM becomes DynamicQuantizeLSTM, which takes both weight matrices transposed."""
        recurrent = node.inputs[2]
        supported = {
            "hidden_size",
            "direction",
            "activations",
            "activation_alpha",
            "activation_beta",
            "clip",
            "input_forget",
        }
        if recurrent is None or not recurrent.is_initializer():
            return Decision(label, "kept float", "its recurrent weight is computed at run time")
        if node.attributes.get_int("layout", 0) or not set(node.attributes) <= supported | {"layout"}:
            return Decision(label, "kept float", "DynamicQuantizeLSTM has no batch-first layout")
        inputs: list[ir.Value | None] = list(node.inputs) + [None] * (8 - len(node.inputs))
        extra: list[ir.Value | None] = []
        total: dict[str, float | int | str] = {}
        for position in (1, 2):
            weight = inputs[position]
            assert weight is not None
            stored, scale, zero, numbers = self._recurrent_weight(weight)
            inputs[position] = stored
            extra += [scale, zero]
            for key, value in numbers.items():
                total[key] = value if key in ("bits", "sqnr_db") else int(total.get(key, 0)) + int(value)
        attributes = {k: v for k, v in node.attributes.items() if k != "layout"}
        new = ir.node(
            "DynamicQuantizeLSTM",
            [*inputs, *extra],
            domain=MICROSOFT,
            outputs=[ir.Value(name=value.name, type=value.type, shape=value.shape) for value in node.outputs],
            name=label,
        )
        new.attributes.update(attributes)
        graph = node.graph
        assert graph is not None
        self._model.opset_imports.setdefault(MICROSOFT, 1)
        self._model.graph.opset_imports.setdefault(MICROSOFT, 1)
        ir.convenience.replace_nodes_and_values(graph, node, [node], [new], node.outputs, new.outputs)
        return Decision(label, "int8", "LSTM with activations quantized at run time", total)

    def _recurrent_weight(self, weight: ir.Value) -> _Written:
        """Transpose and quantize a weight, [directions, gates, inputs], once for all LSTMs that read it."""
        if id(weight) not in self._recurrent:
            array = np.ascontiguousarray(weight.const_value.numpy().transpose(0, 2, 1))  # type: ignore[union-attr]
            quantized = quantize_array(
                array,
                bits=self._bits,
                reduce_axes=(1,),
                search=self._options.scale,
                rounding=plain_rounding(self._options),
            )
            self._recurrent[id(weight)] = self._written(weight, array, quantized, quantized.scale.squeeze(1))
        return self._recurrent[id(weight)]

    def _quantized_activation(self, graph: ir.Graph, node: ir.Node, value: ir.Value) -> tuple[ir.Value, ...]:
        """Quantize an activation once for all layers of one graph that read it."""
        key = (id(graph), id(value))
        if key not in self._activations:
            name = str(value.name)
            names = [self._namer(f"{name}.{part}") for part in ("dynamic_q", "dynamic_scale", "dynamic_zero")]
            quantize = make_node(
                "DynamicQuantizeLinear", [value], names, name=self._namer(f"{name}.dynamic"), dtype=None
            )
            kinds = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
            for output, dtype in zip(quantize.outputs, kinds, strict=True):
                output.type = ir.TensorType(dtype)
            quantize.outputs[0].shape = value.shape
            graph.insert_before(node, quantize)
            self._activations[key] = tuple(quantize.outputs)
        return self._activations[key]

    def _quantized_weight(self, weight: ir.Value, array: np.ndarray) -> _Written:
        if id(weight) not in self._weights:
            axes = None if self._options.granularity == "tensor" else (0,)
            quantized = quantize_array(
                array,
                bits=self._bits,
                reduce_axes=axes,
                search=self._options.scale,
                rounding=plain_rounding(self._options),
            )
            scale = quantized.scale.reshape(-1) if axes else quantized.scale.reshape(())
            self._weights[id(weight)] = self._written(weight, array, quantized, scale)
        return self._weights[id(weight)]

    def _written(self, weight: ir.Value, array: np.ndarray, quantized: Quantized, scale: np.ndarray) -> _Written:
        graph, name = owner_of(weight), str(weight.name)
        return (
            add_initializer(graph, self._namer(f"{name}.q"), quantized.values),
            add_initializer(graph, self._namer(f"{name}.scale"), scale),
            add_initializer(graph, self._namer(f"{name}.zero"), np.zeros(scale.shape, dtype=np.int8)),
            _numbers(array, quantized),
        )


def _numbers(array: np.ndarray, quantized: Quantized) -> dict[str, float | int | str]:
    return {
        "bits": quantized.bits,
        "bytes_before": array.nbytes,
        "bytes_after": quantized.values.nbytes + quantized.scale.size * 5,
        "sqnr_db": round(sqnr_db(array, dequantize(quantized)), 2),
    }
