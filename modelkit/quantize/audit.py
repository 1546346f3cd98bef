"""Fusion audit: which layers of an artifact onnxruntime really runs in integers, and why the others do not."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelkit.decision import Decision
from modelkit.runtime import DEFAULT_PROVIDERS, make_session

INTEGER_KERNELS = {
    "QLinearConv",
    "QLinearMatMul",
    "QLinearAdd",
    "QLinearMul",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
    "QLinearLeakyRelu",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QGemm",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "ConvInteger",
    "MatMulNBits",
    "QAttention",
}
# Operators that multiply and add: what integer kernels are for.
_LAYERS = {
    "Conv",
    "FusedConv",
    "NhwcFusedConv",
    "ConvTranspose",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
    "LSTM",
    "GRU",
    "RNN",
    "Attention",
    "MultiHeadAttention",
}
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


def audit(
    path: Path,
    decisions: Sequence[Decision] = (),
    *,
    providers: Sequence[str] = DEFAULT_PROVIDERS,
) -> dict[str, Any]:
    """Let onnxruntime optimise a model, and read from the result how its layers run.

    Args:
        path: The artifact.
        decisions: What the algorithm decided; its reasons explain layers that were left in float on purpose.
        providers: Execution providers.

    Returns:
        ``integer`` and ``float``: how many layers run in integers and floats; ``conversions``: how many
        QuantizeLinear and DequantizeLinear are left; ``kernels``: counts by operator; ``unfused``: for each
        float layer its node, op and reason.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        make_session(path, providers=providers, optimized_path=optimized)
        graph = onnx.load(optimized, load_external_data=False).graph
    reasons = {decision.target: decision.reason for decision in decisions if decision.action != "int8"}
    kernels: dict[str, int] = {}
    unfused: list[dict[str, str]] = []
    makers = {output: node.op_type for node in graph.node for output in node.output}
    constants = {initializer.name for initializer in graph.initializer}
    for node in graph.node:
        kernels[node.op_type] = kernels.get(node.op_type, 0) + 1
        if node.op_type in _LAYERS:
            reason = reasons.get(node.name) or _guess(node.op_type, list(node.input), makers, constants)
            unfused.append({"node": node.name or node.output[0], "op": node.op_type, "reason": reason})
    return {
        "integer": sum(count for op, count in kernels.items() if op in INTEGER_KERNELS),
        "float": len(unfused),
        "conversions": sum(count for op, count in kernels.items() if op in _CONVERSIONS),
        "kernels": dict(sorted(kernels.items())),
        "unfused": unfused,
    }


def _guess(op: str, inputs: list[str], makers: Mapping[str, str], constants: set[str]) -> str:
    """Say why a layer was not fused, from what feeds it."""
    weight = inputs[1] if len(inputs) > 1 else ""
    if op in ("LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "ConvTranspose"):
        return f"onnxruntime has no integer kernel for {op} here"
    if weight in constants:
        return "its weight is unpacked to float when the model loads"
    fed = makers.get(inputs[0], "")
    if makers.get(weight) != "DequantizeLinear":
        return "multiplies two activations" if weight not in constants else "its weight is float"
    if fed != "DequantizeLinear":
        return f"its input comes in float from {fed or 'the graph input'}"
    return "its output is not quantized, or its bias is not in integers"
