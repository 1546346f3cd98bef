"""From a trained torch module to a plain ONNX file whose names say what the tensors are."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

MODERN_OPSET = 18


def export(
    net: nn.Module,
    example: np.ndarray,
    path: Path,
    *,
    input_name: str,
    opset: int = MODERN_OPSET,
    dynamic: bool = True,
    legacy: bool = False,
    fold_batchnorm: bool = True,
) -> None:
    """Write `net` as one ONNX file.

    Args:
        net: Trained module in eval mode.
        example: A batch of two samples; of one, for a fixed batch of one.
        path: File to write.
        input_name: Name of the input; the output is `logits`.
        opset: Opset of the default domain; below 18 only with `legacy`.
        dynamic: Leave the batch axis open, as `batch`.
        legacy: Use the TorchScript exporter, which knows old opsets and writes GRU weights as constants.
        fold_batchnorm: False leaves BatchNormalization nodes (with `legacy`).
    """
    inputs = (torch.from_numpy(example),)
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if legacy:
            keep = torch.onnx.TrainingMode.PRESERVE if not fold_batchnorm else torch.onnx.TrainingMode.EVAL
            torch.onnx.export(
                net,
                inputs,
                path,
                dynamo=False,
                training=keep,
                opset_version=opset,
                input_names=[input_name],
                output_names=["logits"],
                dynamic_axes={input_name: {0: "batch"}, "logits": {0: "batch"}} if dynamic else None,
            )
        else:
            torch.onnx.export(
                net,
                inputs,
                path,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[input_name],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},) if dynamic else None,
                external_data=False,
            )
    model = onnx.load(path)
    _strip(model)
    _name_weights(model, {name: value.numpy() for name, value in net.state_dict().items()})
    save(model, path)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check the model strictly and write it with the same bytes each time."""
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter noted about the machine: stack traces, paths, module names."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    graph.doc_string = ""
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def _name_weights(model: onnx.ModelProto, state: dict[str, np.ndarray]) -> None:
    """Give weights that the exporter numbered (`val_18`, `onnx::MatMul_240`) the name of their parameter."""
    taken = {item.name for item in model.graph.initializer}
    renamed: dict[str, str] = {}
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item)
        for name, value in state.items():
            if array.ndim == 2 and name not in taken and np.array_equal(array, value.T):
                renamed[item.name] = name
                taken.add(name)
                break
    for node in model.graph.node:
        if node.op_type == "GRU":
            roles = zip(node.input[1:4], ("gru.W", "gru.R", "gru.B"), strict=True)
            renamed.update(roles)
        if node.op_type == "Conv":
            weight = node.input[1]
            name = renamed.get(weight, weight)
            if weight.startswith("onnx::"):
                continue
            if len(node.input) > 2 and not node.input[2].endswith(".bias"):
                renamed[node.input[2]] = name.removesuffix(".weight") + ".bias"
    for item in model.graph.initializer:
        item.name = renamed.get(item.name, item.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def run(path: Path, x: np.ndarray, batch: int = 250) -> np.ndarray:
    """Logits of all rows of `x` by onnxruntime on one thread; a batch fixed in the model beats `batch`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    if isinstance(spec.shape[0], int):
        batch = spec.shape[0]
    parts = [session.run(["logits"], {spec.name: x[i : i + batch]})[0] for i in range(0, len(x), batch)]
    return np.concatenate(parts)
