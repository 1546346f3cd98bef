"""Fusion audit: which layers of an artifact onnxruntime really runs in integers, and why the others do not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.decision import Decision
from modelkit.runtime import DEFAULT_PROVIDERS, make_session

if TYPE_CHECKING:
    import onnx

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
    written = _producers(onnx.load(path, load_external_data=False).graph)
    reasons = {decision.target: decision.reason for decision in decisions if decision.action != "int8"}
    kernels: dict[str, int] = {}
    unfused: list[dict[str, str]] = []
    for node, makers, constants in _nodes(graph, {}, set()):
        kernels[node.op_type] = kernels.get(node.op_type, 0) + 1
        if node.op_type in _LAYERS:
            name = _name_in(written, node)
            reason = reasons.get(name) or _guess(node.op_type, list(node.input), makers, constants)
            unfused.append({"node": name, "op": node.op_type, "reason": reason})
    return {
        "integer": sum(count for op, count in kernels.items() if op in INTEGER_KERNELS),
        "float": len(unfused),
        "conversions": sum(count for op, count in kernels.items() if op in _CONVERSIONS),
        "kernels": dict(sorted(kernels.items())),
        "unfused": unfused,
    }


def _nodes(
    graph: onnx.GraphProto, makers: Mapping[str, str], constants: set[str]
) -> Iterator[tuple[onnx.NodeProto, Mapping[str, str], set[str]]]:
    """Every node, subgraphs included, with what makes the values it can see and which of them are constants."""
    makers = {**makers, **{output: node.op_type for node in graph.node for output in node.output}}
    constants = constants | {initializer.name for initializer in graph.initializer}
    for node in graph.node:
        yield node, makers, constants
        for attribute in node.attribute:
            for below in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(below, makers, constants)


def _producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """For each value of a graph and its subgraphs, the node that makes it."""
    return {output: node for node, _, _ in _nodes(graph, {}, set()) for output in node.output}


def _name_in(written: Mapping[str, onnx.NodeProto], node: onnx.NodeProto) -> str:
    """Name that a node of onnxruntime's graph has in the artifact: layers are renamed when they are fused."""
    # A convolution in blocked layout is called after its old output.
    for output in (node.name.removesuffix("_nchwc"), *node.output):
        maker = written.get(output)
        while maker is not None and maker.op_type not in _LAYERS and maker.input:
            maker = written.get(maker.input[0])
        if maker is not None:
            return maker.name or maker.output[0]
    return node.name or node.output[0]


def _guess(op: str, inputs: list[str], makers: Mapping[str, str], constants: set[str]) -> str:
    """Say why a layer was not fused, from what feeds it."""
    weight = inputs[1] if len(inputs) > 1 else ""
    if op in ("LSTM", "GRU", "RNN", "Attention", "MultiHeadAttention", "ConvTranspose"):
        return f"onnxruntime has no integer kernel for {op} here"
    if inputs[0] in constants:
        return "its left operand is the constant"
    if weight in constants:
        return "its weight is unpacked to float when the model loads"
    fed = makers.get(inputs[0], "")
    if makers.get(weight) != "DequantizeLinear":
        return "multiplies two activations"
    if fed != "DequantizeLinear":
        return f"its input comes in float from {fed or 'the graph input'}"
    return "its output is not quantized, or its bias is not in integers"
