"""Small models for the tests of the trainable graph, and the same numbers from onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper

from modelkit.runtime import make_session
from modelkit.train.module import GraphModule, to_torch

# Threads that spin make small models slower, above all where several tests run at once.
torch.set_num_threads(1)


def one_node(
    op: str,
    inputs: Sequence[np.ndarray | None],
    *,
    opset: int = 18,
    outputs: int = 1,
    constants: Sequence[int] = (),
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one node, and what to feed it. Inputs named in ``constants`` become initializers."""
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    feeds = {n: a for i, (n, a) in enumerate(zip(names, inputs, strict=True)) if a is not None and i not in constants}
    declared = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()
    ]
    stored = [numpy_helper.from_array(inputs[i], names[i]) for i in constants if inputs[i] is not None]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="node", **attributes)
    values = [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph([node], "one", declared, values, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), feeds


def module_of(model: onnx.ModelProto, **options: Any) -> GraphModule:
    return to_torch(ir.serde.deserialize_model(model), **options).eval()


def run_torch(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    with torch.no_grad():
        found = module_of(model)({n: torch.from_numpy(np.array(a)) for n, a in feeds.items()})
    return [tensor.numpy() for tensor in found.values()]


def run_ort(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return make_session(model.SerializeToString(), optimize=False).run(None, dict(feeds))


def same(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """Assert that torch gives what onnxruntime gives."""
    wanted, found = run_ort(model, feeds), run_torch(model, feeds)
    for w, f in zip(wanted, found, strict=True):
        assert f.shape == w.shape and f.dtype == w.dtype
        np.testing.assert_allclose(f, w, tolerance, tolerance)


def small_graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    initializers: Mapping[str, np.ndarray],
    *,
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model of some nodes."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(n, dtype, list(shape)) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, dtype, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
