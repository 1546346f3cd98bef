"""Nets of one layer with known weights, and the samples, for tests of what zeroes single weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from modelkit.data.arrays import from_arrays
from modelkit.data.dataset import Dataset
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.linear.matrix import Layer, layer_of
from modelkit.prune.select import prunable_weights
from modelkit.runtime import TensorSpec

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def one_layer(
    op: str, x: tuple, weights: Mapping[int, np.ndarray], *, outputs: int = 1, opset: int = 17, **attributes
):
    """A model of one node: input "x" of a shape, constant inputs by their index ("w1", "w2", ...)."""
    last = max([*weights, 0 if 0 not in weights else 1])
    names = [f"w{i}" if i in weights else ("x" if i in (0, 1) else "") for i in range(last + 1)]
    ends = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, ends, name="layer", **attributes)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, None) for end in ends],
        [numpy_helper.from_array(array, f"w{i}") for i, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return ir.serde.deserialize_model(proto)


def layers_of(model: ir.Model) -> list[Layer]:
    return [layer_of(use) for use in prunable_weights(model, [], [])[0]]


def dataset_of(x: np.ndarray, name: str = "x") -> Dataset:
    return from_arrays({name: x}, [TensorSpec(name, x.dtype, ("n", *x.shape[1:]))])


def read(name: str) -> ir.Model:
    model = load(SAMPLES / f"{name}.onnx").model
    normalise(model)
    return model


def arrays(name: str, part: str, count: int) -> dict[str, np.ndarray]:
    """The first rows of a sample's data set; it is shuffled."""
    with np.load(SAMPLES / f"{name}.{part}.npz") as data:
        return {key: data[key][:count] for key in data.files}


def calibration(name: str, count: int) -> Dataset:
    data = arrays(name, "calib", count)
    data.pop("labels")
    [(key, x)] = data.items()
    return dataset_of(x, key)


def accuracy(model: ir.Model, name: str, count: int = 500) -> float:
    data = arrays(name, "eval", count)
    labels = data.pop("labels")
    return float((session_of(model).run(None, data)[0].argmax(axis=-1) == labels).mean())
