"""Zero channels that bring a convolution into onnxruntime's fast integer kernel: it takes channels by fours.

Where the number of input channels is no multiple of four, onnxruntime first copies every window of the input into
the row of a matrix (im2col). Most networks begin with three channels. With a fourth, all zeros, the kernel reads the
input in place; the outputs are bit for bit the same.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, drop_unused_initializers, make_node, owner_of
from modelkit.quantize.plan import Plan

_STEP = 4  # channels that the kernel reads at a time
_LEAST_OUTPUTS = 16  # with fewer outputs, or no multiple of four, onnxruntime does not use the kernel
# Beyond these the zeros cost more than the copies. Measured with AVX512-VNNI, onnxruntime 1.32: 3 to 4 channels gain
# 46 to 66 % for 3x3 windows, 20 % for 5x5, 12 % for 7x7 with stride 2, and lose 9 % for 11x11 with stride 4.
_WINDOW = 5
_LARGE_WINDOW, _LARGE_STRIDE, _LARGE_GROWTH = 7, 2, 1.34


def align_channels(model: ir.Model, plan: Plan) -> list[Decision]:
    """Pad inputs and weights of convolutions with zero channels where that pays, in place.

    Args:
        model: A model whose layers ``apply_static`` has put between QuantizeLinear and DequantizeLinear.
        plan: The plan that was carried out.

    Returns:
        A decision for each convolution that was padded.
    """
    decisions: list[Decision] = []
    namer = Namer(model)
    padded: dict[tuple[ir.Value, int], ir.Value] = {}
    weights: dict[tuple[ir.Value, int], ir.Value] = {}
    for node in plan.nodes:
        extra = extra_channels(node)
        if not extra:
            continue
        for index, done, pad in ((0, padded, _pad_activation), (1, weights, _pad_weight)):
            value = node.inputs[index]
            assert value is not None
            if (value, extra) not in done:
                done[value, extra] = pad(value, extra, namer)
            node.replace_input_with(index, done[value, extra])
        more = f"{extra} zero channel{'s' if extra > 1 else ''} more: the integer kernel reads them by fours"
        decisions.append(Decision(str(node.name or node.outputs[0].name), "padded", more))
    for value, _ in (*padded, *weights):
        front = value.producer()
        if front is not None and front.graph is not None and not (value.uses() or value.is_graph_output()):
            front.graph.remove(front, safe=True)
    drop_unused_initializers(model)
    return decisions


def extra_channels(node: ir.Node) -> int:
    """Number of zero channels that make a convolution in integers faster; 0 for none.

    Args:
        node: A node of the plan; only a ``Conv`` without groups, between DequantizeLinear nodes, can be padded.
    """
    if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
        return 0
    weight = node.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) != 4 or weight.producer() is None:
        return 0
    outputs, channels, *window = (int(size) for size in weight.shape.numpy())
    extra = -channels % _STEP
    if outputs < _LEAST_OUTPUTS or outputs % _STEP:
        return 0
    side, stride = max(window), max(node.attributes.get_ints("strides", [1]))
    large = side <= _LARGE_WINDOW and stride <= _LARGE_STRIDE and channels + extra <= _LARGE_GROWTH * channels
    return extra if side <= _WINDOW or large else 0


def _pad_activation(restored: ir.Value, extra: int, namer: Namer) -> ir.Value:
    """Pad integers with their zero point, [N, C, H, W] to [N, C + extra, H, W], and restore floats from that."""
    front = restored.producer()
    assert front is not None and front.graph is not None
    quantized, scale, zero = front.inputs[:3]
    assert quantized is not None and zero is not None
    name = str(restored.name)
    pads = add_initializer(front.graph, namer(f"{name}.pads"), np.array([0, 0, 0, 0, 0, extra, 0, 0], np.int64))
    pad = make_node(
        "Pad",
        [quantized, pads, zero],
        [namer(f"{name}.padded")],
        name=namer(f"{name}.pad"),
        dtype=quantized.dtype,
    )
    again = make_node(
        "DequantizeLinear",
        [pad.outputs[0], scale, zero],
        [namer(f"{name}.wider")],
        name=namer(f"{name}.wider.dequantize"),
    )
    front.graph.insert_after(front, [pad, again])
    return again.outputs[0]


def _pad_weight(restored: ir.Value, extra: int, namer: Namer) -> ir.Value:
    """Add zero input channels to a weight, [O, C, H, W] to [O, C + extra, H, W]."""
    front = restored.producer()
    assert front is not None and front.graph is not None
    stored, *others = front.inputs
    array = stored.const_value.numpy()  # type: ignore[union-attr]
    wider = np.pad(array, ((0, 0), (0, extra), (0, 0), (0, 0)))
    name = str(stored.name)  # type: ignore[union-attr]
    value = add_initializer(owner_of(stored), namer(f"{name}.wider"), wider)  # type: ignore[arg-type]
    again = make_node(
        "DequantizeLinear",
        [value, *others],
        [namer(f"{restored.name}.wider")],
        name=namer(f"{restored.name}.wider.dequantize"),
        attributes={key: attribute.value for key, attribute in front.attributes.items()},
        shapes=[ir.Shape(wider.shape)],
    )
    front.graph.insert_after(front, again)
    return again.outputs[0]
