"""Folds ``BatchNormalization`` into the convolution or matrix product in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.edit import Namer, add_initializer
from modelkit.graph.passthrough import take_over
from modelkit.graph.tensors import attribute_float, attribute_int, constant_of, opset_of

_DEFAULT_EPSILON = 1e-5
_FOLDED = "its scale and shift are now in the weights of the {op} before it"


@dataclass(frozen=True)
class _Affine:
    """What a BatchNormalization does to each channel: ``y = x * scale + shift`` (float64)."""

    scale: np.ndarray
    shift: np.ndarray


def fold_batchnorm(model: ir.Model) -> list[Decision]:
    """Fold each inference ``BatchNormalization`` that directly follows linear layers, in place.

    With ``s = scale / sqrt(var + epsilon)``, the weights of output channel c are multiplied by s[c]
    and its bias b becomes ``(b - mean) * s + B``, computed in float64. The layer's result must go
    nowhere else. Weights shared with other nodes are copied first.

    Returns:
        A decision for each BatchNormalization, folded or kept with the reason.
    """
    namer = Namer(model)
    decisions: list[Decision] = []
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type != "BatchNormalization" or node.domain:
                continue
            name = node.name or node.outputs[0].name or "BatchNormalization"
            layer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
            reason = _fold(model, graph, node, layer, namer)
            if reason is None and layer is not None:
                decisions.append(Decision(name, "folded", _FOLDED.format(op=layer.op_type)))
            else:
                decisions.append(Decision(name, "kept", reason or "?"))
    return decisions


def _fold(model: ir.Model, graph: ir.Graph, node: ir.Node, layer: ir.Node | None, namer: Namer) -> str | None:
    """Fold one node; return the reason where it cannot be done."""
    opset = opset_of(model)
    if opset < 7 or (opset < 9 and attribute_int(node, "spatial", 1) != 1):
        return f"its form in opset {opset} cannot be folded"
    if attribute_int(node, "training_mode", 0):
        return "it is in training mode"
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return "its statistics are used elsewhere"
    affine = _affine(node)
    if affine is None:
        return "its scale, bias, mean or variance is no constant"
    if layer is None or layer.domain or layer.graph is not graph:
        return "it follows no convolution or matrix product"
    middle = node.inputs[0]
    if middle is None or middle.is_graph_output() or len(middle.uses()) != 1:
        return f"the result of the {layer.op_type} before it is also used elsewhere"
    match layer.op_type:
        case "Conv" | "ConvTranspose":
            reason = _fold_conv(graph, layer, affine, namer)
        case "Gemm":
            reason = _fold_gemm(graph, layer, affine, namer)
        case "MatMul":
            reason = _fold_matmul(graph, layer, None, affine, namer)
        case "Add":
            reason = _fold_added(graph, layer, affine, namer)
        case _:
            reason = f"it follows {layer.op_type}, which has no weights to fold into"
    if reason is not None:
        return reason
    source = node.inputs[0]  # a MatMul may have become a Gemm
    if source is not None:
        take_over(node.outputs[0], source)
    graph.remove(node, safe=True)
    return None


def _affine(node: ir.Node) -> _Affine | None:
    parameters = [constant_of(value) for value in node.inputs[1:5]]
    if len(parameters) != 4 or any(p is None for p in parameters):
        return None
    scale, bias, mean, variance = (p.numpy().astype(np.float64) for p in parameters if p is not None)
    if any(p.shape != scale.shape or p.ndim != 1 for p in (bias, mean, variance)):
        return None
    # The attribute is a float32, and 1e-5 is not one.
    epsilon = float(np.float32(attribute_float(node, "epsilon", _DEFAULT_EPSILON)))
    with np.errstate(all="ignore"):
        scale = scale / np.sqrt(variance + epsilon)
        return _Affine(scale, bias - mean * scale)


def _fold_conv(graph: ir.Graph, layer: ir.Node, affine: _Affine, namer: Namer) -> str | None:
    weight = constant_of(layer.inputs[1])
    bias = constant_of(layer.inputs[2]) if len(layer.inputs) > 2 else None
    if weight is None or (bias is None and len(layer.inputs) > 2 and layer.inputs[2] is not None):
        return f"the weights of the {layer.op_type} before it are no constants"
    array = weight.numpy().astype(np.float64)
    channels = len(affine.scale)
    if layer.op_type == "Conv":
        if array.shape[0] != channels:
            return "its number of channels does not fit"
        array = array * affine.scale.reshape(-1, *[1] * (array.ndim - 1))
    else:
        groups = attribute_int(layer, "group", 1)
        if array.shape[1] * groups != channels or array.shape[0] % groups:
            return "its number of channels does not fit"
        # [C, M/group, ...]: output channel g * M/group + m is made from the input channels of group g.
        split = array.reshape(groups, array.shape[0] // groups, *array.shape[1:])
        array = (split * affine.scale.reshape(groups, 1, -1, *[1] * (array.ndim - 2))).reshape(array.shape)
    old = bias.numpy().astype(np.float64) if bias is not None else np.zeros(channels)
    return _store(graph, layer, weight.dtype, array, old * affine.scale + affine.shift, namer)


def _fold_gemm(graph: ir.Graph, layer: ir.Node, affine: _Affine, namer: Namer) -> str | None:
    weight = constant_of(layer.inputs[1])
    bias = constant_of(layer.inputs[2]) if len(layer.inputs) > 2 else None
    if weight is None or (bias is None and len(layer.inputs) > 2 and layer.inputs[2] is not None):
        return "the weights of the Gemm before it are no constants"
    array = weight.numpy().astype(np.float64)
    axis = 0 if attribute_int(layer, "transB", 0) else 1
    channels = len(affine.scale)
    if array.ndim != 2 or array.shape[axis] != channels:
        return "its number of channels does not fit"
    old = np.zeros(channels)
    if bias is not None:
        beta = attribute_float(layer, "beta", 1.0)
        spread = bias.numpy().astype(np.float64) * beta
        if spread.size not in (1, channels) or (spread.size > 1 and spread.shape[-1] != channels):
            return "the bias of the Gemm before it is not one number for each channel"
        old = np.broadcast_to(spread.reshape(-1), (channels,))
    scaled = array * (affine.scale[:, None] if axis == 0 else affine.scale[None, :])
    reason = _store(graph, layer, weight.dtype, scaled, old * affine.scale + affine.shift, namer)
    if reason is None:
        layer.attributes.pop("beta", None)
    return reason


def _fold_matmul(
    graph: ir.Graph, layer: ir.Node, bias: np.ndarray | None, affine: _Affine, namer: Namer
) -> str | None:
    """Turn MatMul (and the Add behind it) with the BatchNormalization into one Gemm."""
    weight = constant_of(layer.inputs[1])
    data = layer.inputs[0]
    if weight is None or data is None or constant_of(data) is not None:
        return "the weights of the MatMul before it are no constants"
    if data.shape is None or len(data.shape) != 2 or len(weight.shape) != 2:
        return "the MatMul before it is not known to have two dimensions"
    array = weight.numpy().astype(np.float64)
    channels = len(affine.scale)
    if array.shape[1] != channels:
        return "its number of channels does not fit"
    old = np.zeros(channels) if bias is None else bias
    gemm = ir.Node("", "Gemm", [data, layer.inputs[1]], num_outputs=1, name=layer.name)
    reason = _store(graph, gemm, weight.dtype, array * affine.scale, old * affine.scale + affine.shift, namer)
    if reason is not None:
        for index in range(len(gemm.inputs)):
            gemm.replace_input_with(index, None)
        return reason
    output = gemm.outputs[0]
    output.name, output.type, output.shape = (
        namer(layer.outputs[0].name or "gemm"),
        data.type,
        layer.outputs[0].shape,
    )
    gemm.metadata_props.update(layer.metadata_props)
    graph.insert_before(layer, gemm)
    layer.outputs[0].replace_all_uses_with(output)
    graph.remove(layer, safe=True)
    return None


def _fold_added(graph: ir.Graph, add: ir.Node, affine: _Affine, namer: Namer) -> str | None:
    """Fold through an Add of a constant bias to the result of a Conv or MatMul."""
    wanted = "it follows an Add that is not the bias of a matrix product"
    if len(add.inputs) != 2:
        return wanted
    for data, other in (add.inputs, add.inputs[::-1]):
        bias = constant_of(other)
        layer = data.producer() if data is not None else None
        if bias is None or data is None or layer is None or layer.op_type != "MatMul" or layer.domain:
            continue
        if layer.graph is not graph or data.is_graph_output() or len(data.uses()) != 1:
            continue
        array = bias.numpy().astype(np.float64)
        if (
            array.ndim > 2
            or array.size not in (1, len(affine.scale))
            or (array.size > 1 and array.shape[-1] != len(affine.scale))
        ):
            return wanted
        spread = np.broadcast_to(array.reshape(-1), affine.scale.shape)
        reason = _fold_matmul(graph, layer, spread, affine, namer)
        if reason is None:
            gemm_output = add.inputs[0] if constant_of(add.inputs[0]) is None else add.inputs[1]
            add.outputs[0].replace_all_uses_with(gemm_output)  # type: ignore[arg-type]
            graph.remove(add, safe=True)
        return reason
    return wanted


def _store(
    graph: ir.Graph, layer: ir.Node, dtype: ir.DataType, weight: np.ndarray, bias: np.ndarray, namer: Namer
) -> str | None:
    """Write new weights and a bias into a layer's inputs 1 and 2."""
    with np.errstate(all="ignore"):
        arrays = [weight.astype(dtype.numpy()), bias.astype(dtype.numpy())]
    if not all(np.isfinite(a.astype(np.float64)).all() for a in arrays):
        return f"its scale is too large for {dtype.name.lower()} weights"
    layer.resize_inputs(3)
    for index, array in enumerate(arrays, start=1):
        old = layer.inputs[index]
        wanted = (layer.name or layer.op_type) + ".bias" if old is None else old.name or "weight"
        tensor = ir.Tensor(array, dtype)
        if old is not None and old.is_initializer() and not old.is_graph_output() and _used_once(old, layer):
            tensor.name = old.name
            old.const_value = tensor
            old.shape = ir.Shape(array.shape)
            continue
        layer.replace_input_with(index, add_initializer(graph, namer(wanted), array, dtype))
    return None


def _used_once(value: ir.Value, layer: ir.Node) -> bool:
    """Whether only the layer reads a value; a new Gemm shares its weight with the MatMul that it replaces."""
    return len(value.uses()) == (1 if layer.graph is not None else 2)
