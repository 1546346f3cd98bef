"""HardSwish and HardSigmoid in integers: a sum whose range does the clipping, and for HardSwish a product.

HardSigmoid is clip(αx + β, 0, 1) = α · clip(x + β/α, 0, 1/α). The sum x + β/α is rounded to integers that span
exactly 0 to 1/α: what lies outside saturates, so the clip costs nothing. The factor α goes into the scale at which
the integers are read again. HardSwish is x times that (Howard et al., "Searching for MobileNetV3", 2019,
arXiv:1905.02244, section 5.2: α = 1/6, β = 1/2).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer, make_node
from modelkit.graph.normalise import remove_unused
from modelkit.graph.tensors import attribute_float, constant_of, opset_of

HARD = {"HardSwish", "HardSigmoid"}
# Its first opset.
_HARDSWISH = 14
_SIXTH, _HALF = 1 / 6, 0.5
_LEVELS = 255


def slope_and_shift(node: ir.Node) -> tuple[float, float] | None:
    """Return α and β of a node of ``HARD``; None where the sum cannot be written so (β below 0, α not above 0)."""
    if node.domain or node.op_type not in HARD:
        return None
    alpha, beta = _SIXTH, _HALF
    if node.op_type == "HardSigmoid":
        alpha, beta = attribute_float(node, "alpha", 0.2), attribute_float(node, "beta", 0.5)
    return (alpha, beta) if alpha > 1e-6 and 0 <= beta < 1e6 else None


def useful_range(value: ir.Value) -> tuple[float, float]:
    """Ends between which numbers of a value make a difference to all nodes that read it; infinite where they do."""
    low, high = math.inf, -math.inf
    for node in value.consumers():
        found = slope_and_shift(node)
        if found is None:
            return -math.inf, math.inf
        alpha, beta = found
        low = min(low, -beta / alpha)
        high = max(high, (1 - beta) / alpha if node.op_type == "HardSigmoid" else math.inf)
    return (-math.inf, math.inf) if value.is_graph_output() or low > high else (low, high)


def expand_hard(node: ir.Node, signed: bool, namer: Namer) -> None:
    """Write a node of ``HARD`` between DequantizeLinear and QuantizeLinear as integer sum and product, in place.

    Args:
        node: Reads a value from DequantizeLinear; HardSigmoid alone must be read by one QuantizeLinear whose scale
            is 1/255 with the zero point at the lowest integer.
        signed: Whether activations are int8.
        namer: Names of the model.
    """
    found, graph, source, output = slope_and_shift(node), node.graph, node.inputs[0], node.outputs[0]
    assert found is not None and graph is not None and source is not None
    (alpha, beta), label, name = found, str(node.name or output.name), str(output.name)
    dtype, lowest = (np.int8, -128) if signed else (np.uint8, 0)

    def number(part: str, value: float | int, kind: type[np.generic]) -> ir.Value:
        return add_initializer(graph, namer(f"{label}.{part}"), np.array(value, dtype=kind))

    # 255 steps of the constant are β/α exactly; where β is 0 any scale will do.
    zero = number("lowest", lowest, dtype)
    shift = make_node(
        "DequantizeLinear",
        [
            number("shift.q", lowest + _LEVELS if beta else lowest, dtype),
            number("shift.scale", (beta / alpha or 1.0) / _LEVELS, np.float32),
            zero,
        ],
        [namer(f"{label}.shift")],
        name=namer(f"{label}.shift.dequantize"),
        shapes=[ir.Shape(())],
    )
    total = make_node(
        "Add", [source, shift.outputs[0]], [namer(f"{label}.sum")], name=namer(f"{label}.add"), shapes=[output.shape]
    )
    clipping = number("clip.scale", 1 / alpha / _LEVELS, np.float32)
    if node.op_type == "HardSigmoid":
        (quantize,) = output.consumers()
        quantize.replace_input_with(0, total.outputs[0])
        quantize.replace_input_with(1, clipping)
        graph.insert_before(node, [shift, total])
        graph.remove(node, safe=True)
        return
    quantize = make_node(
        "QuantizeLinear",
        [total.outputs[0], clipping, zero],
        [namer(f"{label}.clipped")],
        name=namer(f"{label}.clip"),
        dtype=ir.DataType.INT8 if signed else ir.DataType.UINT8,
        shapes=[output.shape],
    )
    gate = make_node(
        "DequantizeLinear",
        [quantize.outputs[0], number("gate.scale", 1 / _LEVELS, np.float32), zero],
        [namer(f"{label}.gate")],
        name=namer(f"{label}.gate.dequantize"),
        shapes=[output.shape],
    )
    product = make_node("Mul", [source, gate.outputs[0]], [name], name=label, shapes=[output.shape])
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [shift, total, quantize, gate, product], [output], [product.outputs[0]]
    )


def join_hard(model: ir.Model) -> list[Decision]:
    """Find HardSigmoid and HardSwish where they are written in other operators, in place.

    ``clip(x + 3, 0, 6) / 6`` becomes HardSigmoid, and from opset 14 on its product with x HardSwish.

    Returns:
        A decision for each that was found.
    """
    decisions = []
    for node in list(model.graph):
        if node.domain or node.graph is None or node.op_type not in ("Div", "Mul"):
            continue
        new = _sigmoid(node) or (_swish(node) if opset_of(model) >= _HARDSWISH else None)
        if new is None:
            continue
        op, source, attributes = new
        output = node.outputs[0]
        label = str(node.name or output.name)
        fresh = make_node(
            op,
            [source],
            [str(output.name)],
            name=label,
            attributes=attributes,
            dtype=output.dtype,
            shapes=[output.shape],
        )
        ir.convenience.replace_nodes_and_values(node.graph, node, [node], [fresh], [output], [fresh.outputs[0]])
        decisions.append(Decision(label, "rewritten", f"it computes {op}, which integers can"))
    if decisions:
        remove_unused(model)
    return decisions


def _number(value: ir.Value | None) -> float | None:
    constant = constant_of(value)
    return float(constant.numpy().reshape(-1)[0]) if constant is not None and constant.size == 1 else None


def _is(value: ir.Value | None, wanted: float) -> bool:
    found = _number(value)
    return found is not None and abs(found - wanted) <= 1e-6 * max(abs(wanted), 1)


def _sixth(node: ir.Node) -> ir.Value | None:
    """What a node divides by 6."""
    if node.op_type == "Div":
        return node.inputs[0] if _is(node.inputs[1], 6) else None
    return next((node.inputs[1 - i] for i in (0, 1) if _is(node.inputs[i], _SIXTH)), None)


def _clipped_sum(value: ir.Value | None) -> ir.Value | None:
    """The x of clip(x + 3, 0, 6)."""
    clip = value.producer() if value is not None else None
    if clip is None or clip.op_type != "Clip" or clip.domain:
        return None
    if "max" in clip.attributes:
        fits = attribute_float(clip, "min", -1) == 0 and attribute_float(clip, "max", 0) == 6
    else:
        fits = len(clip.inputs) > 2 and _is(clip.inputs[1], 0) and _is(clip.inputs[2], 6)
    add = clip.inputs[0].producer() if fits and clip.inputs[0] is not None else None
    if add is None or add.op_type != "Add" or add.domain:
        return None
    return next((add.inputs[1 - i] for i in (0, 1) if _is(add.inputs[i], 3)), None)


def _sigmoid(node: ir.Node) -> tuple[str, ir.Value, dict[str, object]] | None:
    source = _clipped_sum(_sixth(node))
    return None if source is None else ("HardSigmoid", source, {"alpha": _SIXTH, "beta": _HALF})


def _swish(node: ir.Node) -> tuple[str, ir.Value, dict[str, object]] | None:
    """Product of x and HardSigmoid(x), or x times clip(x + 3, 0, 6), divided by 6 afterwards."""
    if node.op_type == "Mul":
        for index in (0, 1):
            gate, other = node.inputs[index], node.inputs[1 - index]
            maker = gate.producer() if gate is not None else None
            if maker is None or other is None or maker.op_type != "HardSigmoid" or maker.inputs[0] is not other:
                continue
            alpha, beta = slope_and_shift(maker) or (0.0, 0.0)
            if abs(alpha - _SIXTH) < 1e-6 and abs(beta - _HALF) < 1e-6:
                return "HardSwish", other, {}
    product = _sixth(node)
    maker = product.producer() if product is not None else None
    if maker is not None and maker.op_type == "Mul" and not maker.domain:
        for index in (0, 1):
            source = _clipped_sum(maker.inputs[index])
            if source is not None and source is maker.inputs[1 - index]:
                return "HardSwish", source, {}
    return None
