"""What in a model is quantized already, and what would stop or limit quantizing it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.layers import WEIGHT_ROLES, Role, WeightUse, role_of
from modelkit.graph.tensors import constant_of, opset_of

_INTEGER_OPS = {
    *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
    *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QGemm", "QAttention"),
    *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool"),
    *(
        "QLinearGlobalAveragePool",
        "QLinearConcat",
        "QLinearSoftmax",
        "QLinearWhere",
        "QEmbedLayerNormalization",
    ),
}
_WEIGHT_ONLY_OPS = {"MatMulNBits", "GatherBlockQuantized", "MatMulBnb4"}
_STANDARD_DOMAINS = {"", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"}
_RUNTIME_DOMAINS = {"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}
# Below this a weight costs less than the scale and the nodes that would replace it.
SMALL_ELEMENTS = 256
_PER_CHANNEL_OPSET = 13
_NEED_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "LSTM": 1, "GRU": 1, "RNN": 1}


class Scheme(StrEnum):
    """How a model is quantized."""

    NONE = "none"
    QDQ = "qdq"
    INTEGER_OPS = "integer ops"
    WEIGHT_ONLY = "weight-only"


@dataclass(frozen=True)
class QuantizedState:
    """What in a model is quantized.

    Attributes:
        scheme: ``qdq`` has activations behind QuantizeLinear and DequantizeLinear, ``integer ops`` has
            operators that take integers, ``weight-only`` has only weights stored as integers.
        counts: Number of each quantizing operator, sorted by name.
        weights: Number of weights stored as integers of 8 or fewer bits.
    """

    scheme: Scheme
    counts: dict[str, int] = field(default_factory=dict)
    weights: int = 0


def quantized_state(model: ir.Model) -> QuantizedState:
    """Find the quantizing operators of a model and name the scheme, the strongest where several mix."""
    counts: Counter[str] = Counter()
    weights: set[int] = set()
    activations = decoded = False
    for node in model.graph.all_nodes():
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.op_type in _INTEGER_OPS | _WEIGHT_ONLY_OPS:
            counts[node.op_type] += 1
        if node.op_type == "QuantizeLinear" and constant_of(node.inputs[0]) is None:
            activations = True
        for index, value in enumerate(node.inputs):
            tensor = constant_of(value)
            if value is None or tensor is None:
                continue
            if role_of(value, node, index)[0] == Role.QUANTIZED and _is_narrow(tensor):
                weights.add(id(value))
            elif node.op_type == "Cast" and _is_narrow(tensor) and tensor.size >= SMALL_ELEMENTS:
                # Cast and Mul is the other way to store a weight in 8 bits.
                weights.add(id(value))
                decoded = True
    if any(counts[op] for op in _INTEGER_OPS):
        scheme = Scheme.INTEGER_OPS
    elif activations:
        scheme = Scheme.QDQ
    elif weights or decoded or any(counts[op] for op in _WEIGHT_ONLY_OPS):
        scheme = Scheme.WEIGHT_ONLY
    else:
        scheme = Scheme.NONE
    return QuantizedState(scheme, dict(sorted(counts.items())), len(weights))


def _is_narrow(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.BOOL and tensor.dtype != ir.DataType.STRING and tensor.dtype.bitwidth <= 8


def blockers(model: ir.Model, uses: list[WeightUse], state: QuantizedState) -> list[Decision]:
    """List what would stop or limit quantization, the hardest first.

    Args:
        model: The model, normalised or not.
        uses: Its ``weight_uses``.
        state: Its ``quantized_state``.

    Returns:
        Action "stops" for what makes it impossible, "limits" for what leaves parts alone or changes
        them, each with its reason.
    """
    found: list[Decision] = []
    candidates = [u for u in uses if u.role in WEIGHT_ROLES]
    if state.scheme != Scheme.NONE:
        found.append(
            Decision("model", "stops" if not candidates else "limits", f"it is already quantized ({state.scheme})")
        )
    if not candidates and state.scheme == Scheme.NONE:
        found.append(Decision("model", "stops", "it has no weights of a convolution, product, RNN or embedding"))
    found += _custom_operators(model)
    if candidates and opset_of(model) < _PER_CHANNEL_OPSET:
        found.append(
            Decision(
                "model",
                "limits",
                f"scales for each channel need opset 13; it has {opset_of(model)} and is raised",
            )
        )
    found += _computed_weights(model)
    by_value: dict[int, list[WeightUse]] = {}
    for use in uses:
        by_value.setdefault(id(use.value), []).append(use)
    for use in candidates:
        name = use.value.name or "?"
        if use.value.const_value is not None and use.value.const_value.size < SMALL_ELEMENTS:
            found.append(Decision(name, "limits", f"it has only {use.value.const_value.size} numbers"))
        roles = by_value[id(use.value)]
        if len(roles) > 1 and roles[0] is use:
            parts = ", ".join(f"{r.role} of {r.consumers[0][0].name}" for r in roles)
            found.append(Decision(name, "limits", f"it is shared by different parts: {parts}"))
    for node in model.graph.all_nodes():
        if node.op_type in ("Loop", "Scan") and not node.domain:
            found.append(
                Decision(
                    node.name or node.op_type,
                    "limits",
                    f"activations inside a {node.op_type} are not calibrated",
                )
            )
    return found


def _custom_operators(model: ir.Model) -> list[Decision]:
    custom: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        if node.domain not in _STANDARD_DOMAINS | _RUNTIME_DOMAINS:
            custom[f"{node.domain}:{node.op_type}"] += 1
    return [
        Decision(name, "stops", f"a custom operator ({count}x) that stock onnxruntime lacks")
        for name, count in sorted(custom.items())
    ]


def _computed_weights(model: ir.Model) -> list[Decision]:
    """Find layers whose weights are made by other nodes from constants, at each run."""
    found = []
    for node in model.graph.all_nodes():
        index = _NEED_WEIGHTS.get(node.op_type)
        if index is None or node.domain or len(node.inputs) <= index:
            continue
        weight = node.inputs[index]
        if weight is None or constant_of(weight) is not None or weight.producer() is None:
            continue
        if not _depends_on_inputs(weight):
            producer = weight.producer()
            op = producer.op_type if producer is not None else "?"
            if op != "DequantizeLinear":
                found.append(
                    Decision(node.name or node.op_type, "limits", f"its weight is computed at run time by {op}")
                )
    return found


def _depends_on_inputs(value: ir.Value) -> bool:
    """Whether a value depends on an input of a graph."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        producer = current.producer()
        if producer is None:
            if constant_of(current) is None:
                return True
            continue
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in producer.attributes.values()):
            return True
        pending += [v for v in producer.inputs if v is not None]
    return False
