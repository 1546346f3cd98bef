"""Every model of onnx's own test data is run as its stored outputs say, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import pytest
import torch
from onnx import numpy_helper

from modelkit.errors import ModelError
from modelkit.graph.load import load
from modelkit.graph.opset import ensure_opset
from modelkit.graph.tensors import opset_of
from modelkit.runtime import input_specs, make_session
from modelkit.train.module import to_torch

torch.set_num_threads(1)

DATA = Path(onnx.backend.test.__file__).parent / "data"
FOLDERS = sorted(path.parent for kind in ("pytorch-*", "simple") for path in DATA.glob(f"{kind}/*/model.onnx"))
NETWORKS = ["shufflenet", "squeezenet"]
# All else must run.
REFUSED = ("sequence_model", "strnorm_model", "gradient_of_add")


def stored(folder: Path, kind: str) -> list[np.ndarray]:
    arrays = []
    for i in range(len(list(folder.glob(f"{kind}_*.pb")))):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((folder / f"{kind}_{i}.pb").read_bytes())
        arrays.append(numpy_helper.to_array(tensor))
    return arrays


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_model(folder: Path) -> None:
    model = load(folder / "model.onnx").model
    if opset_of(model) < 7:
        ensure_opset(model, 13)
    if any(word in folder.name for word in REFUSED):
        with pytest.raises(ModelError, match="no gradient for "):
            to_torch(model)
        return
    module = to_torch(model).eval()
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = dict(zip(module.input_names, stored(data, "input"), strict=True))
        tensors = {n: torch.from_numpy(np.array(a)) for n, a in inputs.items()}
        with torch.no_grad():
            outputs = module(tensors)
        for found, wanted in zip(outputs.values(), stored(data, "output"), strict=True):
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found.numpy(), wanted, 1e-3, 1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    path = DATA / "light" / f"light_{name}.onnx"
    module = to_torch(load(path).model).eval()
    session = make_session(path)
    shapes = {spec.name: [n if isinstance(n, int) else 1 for n in spec.shape] for spec in input_specs(session)}
    inputs = {n: np.random.default_rng(0).normal(size=s).astype(np.float32) for n, s in shapes.items()}
    with torch.no_grad():
        outputs = module({n: torch.from_numpy(a) for n, a in inputs.items()})
    for found, wanted in zip(outputs.values(), session.run(None, inputs), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, 1e-4, 1e-5)
