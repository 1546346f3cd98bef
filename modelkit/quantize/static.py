"""Static int8: QuantizeLinear/DequantizeLinear around layers, with ranges known from calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node, owner_of
from modelkit.quantize.affine import Quantized, quantize_array
from modelkit.quantize.config import WeightOptions, plain_rounding
from modelkit.quantize.hard import HARD, expand_hard
from modelkit.quantize.plan import Plan, absorbed_into, channel_axis

WeightKey = tuple[str, int]
"""Name of a weight, and the axis of its output channels."""

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators whose weights become integers here."""

_ZERO_SCALE = 1e-6
# Its product with an activation's scale must not vanish in float32.
_SMALLEST_SCALE = 1e-20


@dataclass(frozen=True)
class ActivationType:
    """The integers that activations become.

    Attributes:
        signed: int8 (ARM) or uint8 (x64).
        weight_bits: 8, or 7 where 8 could saturate 16-bit sums.
    """

    signed: bool
    weight_bits: int


@dataclass(frozen=True)
class Applied:
    """What was put into a graph.

    Attributes:
        scales: The scale of each quantized activation.
        weights: By the initializer of a weight's integers, the float numbers that they were made of.
    """

    scales: dict[str, float]
    weights: dict[str, np.ndarray]


def apply_static(
    model: ir.Model,
    plan: Plan,
    ranges: dict[str, tuple[float, float]],
    kind: ActivationType,
    weights: WeightOptions,
    rounded: Mapping[WeightKey, Quantized] | None = None,
) -> Applied:
    """Insert the nodes, in place. The opset must be 13 or more.

    Args:
        model: The model that ``plan`` was made for.
        plan: What to quantize.
        ranges: (low, high) with low <= 0 <= high for each activation of the plan.
        kind: Integer types.
        weights: Granularity, scale search and rounding of weights (always symmetric here, as kernels want).
        rounded: Weights that are integers already.
    """
    namer = Namer(model)
    sources = {str(value.name): _source(str(value.name), plan) for value in plan.activations}
    # The clip of a HardSigmoid comes from its range, which is therefore no matter of what was seen.
    gates = {str(node.outputs[0].name): (0.0, 1.0) for node in plan.nodes if node.op_type == "HardSigmoid"}
    ranges = {**ranges, **gates}
    parameters = {name: _scale_and_zero(*ranges[source], kind) for name, source in sources.items()}
    # Weights first: a bias needs the scale of the activation that its layer reads.
    layers = [node for node in plan.nodes if node.op_type in LAYERS]
    shared: dict[WeightKey, _Shared] = {}
    for node in layers:
        _quantize_layer(node, parameters, kind, weights, namer, shared, rounded or {})
    constants: dict[ir.Value, ir.Value] = {}
    for node in plan.nodes:
        if node.op_type in ("Add", "Mul"):
            _quantize_operands(node, kind, namer, constants)
    absorbed = {reader for node in plan.nodes if (reader := absorbed_into(node)) is not None}
    grids: dict[str, list[ir.Value]] = {}
    for value in plan.activations:
        name = str(value.name)
        if sources[name] not in grids:
            grids[sources[name]] = _grid(model.graph, name, *parameters[name], kind, namer)
        _insert_pair(model.graph, value, grids[sources[name]], kind, namer, absorbed)
    for node in plan.nodes:
        if node.op_type in HARD:
            expand_hard(node, kind.signed, namer)
    drop_unused_initializers(model)
    scales = {name: scale for name, (scale, _) in parameters.items()}
    return Applied(scales, {form.stored: each.array for each in shared.values() for form in each.forms})


def _source(name: str, plan: Plan) -> str:
    """The value whose scale an activation has: another's where it only moves numbers."""
    while name in plan.same_scale:
        name = plan.same_scale[name]
    return name


def _scale_and_zero(low: float, high: float, kind: ActivationType) -> tuple[float, int]:
    scale = (high - low) / 255
    if scale < 1e-12:
        scale = 1.0
    zero = round(min(max(-low / scale, 0.0), 255.0))
    return scale, zero - 128 if kind.signed else zero


def _grid(graph: ir.Graph, name: str, scale: float, zero: int, kind: ActivationType, namer: Namer) -> list[ir.Value]:
    """Store the scale and the zero point of activations; all that share them read the same two."""
    return [
        add_initializer(graph, namer(f"{name}.scale"), np.array(scale, dtype=np.float32)),
        add_initializer(graph, namer(f"{name}.zero"), np.array(zero, dtype=np.int8 if kind.signed else np.uint8)),
    ]


def _insert_pair(
    graph: ir.Graph,
    value: ir.Value,
    grid: list[ir.Value],
    kind: ActivationType,
    namer: Namer,
    absorbed: set[ir.Node],
) -> None:
    """Put Q and DQ behind a value; all its readers, and the graph's output, see the restored floats.

    A Relu or Clip in ``absorbed`` goes: rounding to a range that ends where it cuts does the same.
    """
    name = str(value.name)
    readers = [(use.node, use.idx) for use in value.uses()]
    # An input that is returned as it is stays exact: renaming it would rename the input.
    is_output = value.is_graph_output() and not value.is_graph_input()
    quantize = make_node(
        "QuantizeLinear",
        [value, *grid],
        [namer(f"{name}.quantized")],
        name=namer(f"{name}.quantize"),
        dtype=ir.DataType.INT8 if kind.signed else ir.DataType.UINT8,
        shapes=[value.shape],
    )
    dequantize = make_node(
        "DequantizeLinear",
        [quantize.outputs[0], *grid],
        [namer(f"{name}.restored")],
        name=namer(f"{name}.dequantize"),
        shapes=[value.shape],
    )
    producer = value.producer()
    if producer is None:
        first = next(iter(graph))
        graph.insert_before(first, [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    restored = dequantize.outputs[0]
    for node, index in readers:
        node.replace_input_with(index, restored)
    if is_output:
        value.name = namer(f"{name}.float")
        restored.name = name
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = restored
    if producer in absorbed:
        quantize.replace_input_with(0, producer.inputs[0])
        graph.remove(producer, safe=True)


def _quantize_operands(node: ir.Node, kind: ActivationType, namer: Namer, done: dict[ir.Value, ir.Value]) -> None:
    """Store the constant operand of a sum or product in the integers of activations, with one scale."""
    for index, value in enumerate(node.inputs):
        if value is None or not value.is_initializer():
            continue
        if value not in done:
            quantized = quantize_array(value.const_value.numpy(), center="range")  # type: ignore[union-attr]
            shift, dtype = (128, np.int8) if kind.signed else (0, np.uint8)
            zero = (quantized.zero_point.astype(np.int16) - shift).astype(dtype)  # type: ignore[union-attr]
            graph, name = owner_of(value), str(value.name)
            inputs = [
                add_initializer(graph, namer(f"{name}.q"), (quantized.values.astype(np.int16) - shift).astype(dtype)),
                add_initializer(graph, namer(f"{name}.scale"), quantized.scale.reshape(())),
                add_initializer(graph, namer(f"{name}.zero"), zero.reshape(())),
            ]
            done[value] = _front(graph, inputs, None, f"{name}.restored", value.shape, namer)
        node.replace_input_with(index, done[value])


@dataclass(frozen=True)
class _Form:
    """Integers that a weight is stored as: their initializer, and the floats that layers read."""

    quantized: Quantized
    stored: str
    restored: ir.Value


@dataclass
class _Shared:
    """A weight, its integers, and the forms in which layers read it: several where a bias needs wider steps."""

    array: np.ndarray
    plain: Quantized
    forms: list[_Form] = field(default_factory=list)


def _quantize_layer(
    node: ir.Node,
    parameters: dict[str, tuple[float, int]],
    kind: ActivationType,
    options: WeightOptions,
    namer: Namer,
    shared: dict[WeightKey, _Shared],
    rounded: Mapping[WeightKey, Quantized],
) -> None:
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None
    key = weight_key(node)
    axis = key[1]
    activation_scale = parameters[str(node.inputs[0].name)][0]  # type: ignore[union-attr]
    array = weight.const_value.numpy()  # type: ignore[union-attr]
    if key not in shared:
        ready = rounded.get(key)
        shared[key] = _Shared(array, quantize_weight(node, array, kind, options) if ready is None else ready)
    floor = (
        np.zeros(array.shape[axis]) if bias is None else _smallest_scale(bias, activation_scale, array.shape[axis])
    )
    quantized = _fit_bias(array, shared[key].plain, floor, kind.weight_bits)
    form = next((f for f in shared[key].forms if np.array_equal(f.quantized.scale, quantized.scale)), None)
    if form is None:
        per_channel = options.granularity != "tensor"
        form = _dequantized(
            weight, quantized, axis if per_channel else None, namer, zero_point=node.op_type != "Conv"
        )
        shared[key].forms.append(form)
    node.replace_input_with(1, form.restored)
    if bias is not None:
        _quantize_bias(node, bias, activation_scale, quantized.scale.reshape(-1), namer)


def weight_key(node: ir.Node) -> WeightKey:
    """What tells a layer's weight, as the layer reads it, from others: two layers may read one in two ways.

    Args:
        node: A Conv, Gemm or MatMul.
    """
    return str(node.inputs[1].name), channel_axis(node)  # type: ignore[union-attr]


def quantize_weight(node: ir.Node, array: np.ndarray, kind: ActivationType, options: WeightOptions) -> Quantized:
    """Quantize a layer's weight as ``apply_static`` does: symmetric, one scale for each output channel.

    Args:
        node: The Conv, Gemm or MatMul that reads it.
        array: Its numbers.
        kind: Integer types.
        options: Granularity, scale search and rounding.
    """
    axis = channel_axis(node)
    per_channel = options.granularity != "tensor"
    return quantize_array(
        array,
        bits=kind.weight_bits,
        reduce_axes=tuple(i for i in range(array.ndim) if i != axis) if per_channel else None,
        search=options.scale,
        rounding=plain_rounding(options),
    )


def _smallest_scale(bias: ir.Value, activation_scale: float, channels: int) -> np.ndarray:
    """Weight scale below which a bias would not fit 31 bits in units of both scales (with room to spare)."""
    numbers = np.abs(bias.const_value.numpy()).reshape(-1)  # type: ignore[union-attr]
    return np.broadcast_to(numbers, (channels,)) / (activation_scale * float(2**30))


def _fit_bias(array: np.ndarray, quantized: Quantized, floor: np.ndarray, bits: int) -> Quantized:
    """Raise scales that are too fine for their bias, and lower those of weights that are all zero."""
    shape = quantized.scale.shape
    least = floor.reshape(shape) if quantized.scale.size > 1 else floor.max().reshape(shape)
    # Any scale suits zeros, but the bias of such a channel is counted in steps of it.
    others = tuple(axis for axis in range(array.ndim) if shape[axis] == 1)
    zero = ~np.any(array, axis=others, keepdims=True)
    scale = np.where(zero, _ZERO_SCALE, np.maximum(quantized.scale, _SMALLEST_SCALE))
    scale = np.maximum(scale, least).astype(np.float32)
    if (scale == quantized.scale).all():
        return quantized
    top = 2 ** (bits - 1) - 1
    again = np.clip(np.rint(array / scale), -top, top)
    values = np.where(scale == quantized.scale, quantized.values, again)
    return Quantized(values.astype(np.int8), scale, None, bits)


def _dequantized(
    weight: ir.Value, quantized: Quantized, axis: int | None, namer: Namer, *, zero_point: bool
) -> _Form:
    """Store a weight. A zero point of 0 may be left out, but onnxruntime fuses no Gemm or MatMul without it."""
    graph, name = owner_of(weight), str(weight.name)
    stored = add_initializer(graph, namer(f"{name}.q"), quantized.values)
    scale = quantized.scale.reshape(-1) if axis is not None else quantized.scale.reshape(())
    inputs = [stored, add_initializer(graph, namer(f"{name}.scale"), scale)]
    if zero_point:
        zero = np.zeros(scale.shape, dtype=np.int8)
        inputs.append(add_initializer(graph, namer(f"{name}.zero"), zero))
    restored = _front(graph, inputs, axis, f"{name}.restored", weight.shape, namer)
    return _Form(quantized, str(stored.name), restored)


def _quantize_bias(
    node: ir.Node, bias: ir.Value, activation_scale: float, weight_scale: np.ndarray, namer: Namer
) -> None:
    """Store a bias as int32 in units of activation scale × weight scale, which adds without conversion."""
    graph, name = owner_of(bias), str(bias.name)
    scale = (activation_scale * weight_scale.astype(np.float64)).astype(np.float32)
    numbers = bias.const_value.numpy()  # type: ignore[union-attr]
    integers = np.clip(np.rint(numbers.reshape(-1) / scale.astype(np.float64)), -(2**31 - 1), 2**31 - 1)
    stored = add_initializer(graph, namer(f"{name}.q"), integers.astype(np.int32))
    per_channel = scale.size > 1
    scale = scale if per_channel else scale.reshape(())
    inputs = [stored, add_initializer(graph, namer(f"{name}.scale"), scale)]
    restored = _front(graph, inputs, 0 if per_channel else None, f"{name}.restored", ir.Shape(integers.shape), namer)
    node.replace_input_with(2, restored)


def _front(
    graph: ir.Graph,
    inputs: list[ir.Value],
    axis: int | None,
    output: str,
    shape: ir.Shape | None,
    namer: Namer,
) -> ir.Value:
    attributes: dict[str, object] = {} if axis is None else {"axis": axis}
    node = make_node(
        "DequantizeLinear",
        inputs,
        [namer(output)],
        name=namer(f"{output}.dequantize"),
        attributes=attributes,
        shapes=[shape],
    )
    graph.insert_before(next(iter(graph)), node)
    return node.outputs[0]
