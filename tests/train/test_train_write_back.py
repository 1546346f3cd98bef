"""What was trained goes back into the same graph; what was not trained stays the same bytes."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from train_models import small_graph

from modelkit.errors import ModelError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.runtime import make_session
from modelkit.train.module import to_torch, write_back

SAMPLES = Path(__file__).resolve().parent.parent.parent / "sample_models"
MODELS = [
    path
    for path in sorted([*SAMPLES.glob("*.onnx"), *SAMPLES.glob("twins/*.onnx")])
    if path.stem not in ("digits_mlp_if", "fashion_cnn_qoperator")
]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_unchanged_is_the_same_bytes(path: Path, tmp_path: Path) -> None:
    model = load(path).model
    save(model, tmp_path / "before.onnx")
    assert write_back(to_torch(model), model) == []
    save(model, tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()


@pytest.mark.parametrize(
    "name", ["digits_mlp", "twins/fashion_cnn_batchnorm", "language_gru", "language_transformer"]
)
def test_one_step_of_training_reaches_onnxruntime(name: str, tmp_path: Path) -> None:
    path = SAMPLES / f"{name}.onnx"
    model = load(path).model
    if "batchnorm" not in name:
        normalise(model)
    module = to_torch(model).train()
    stem = "_".join(path.stem.split("_")[:2])
    with np.load(SAMPLES / f"{stem}.calib.npz") as file:
        (key,) = module.input_names
        x, labels = file[key][:16], torch.from_numpy(file["labels"][:16].astype(np.int64))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = make_session(path).run(None, {key: x})[0]
    losses = []
    for _ in range(3):
        (scores,) = module({key: torch.from_numpy(x)}).values()
        loss = torch.nn.functional.cross_entropy(scores, labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    changed = write_back(module, model)
    assert set(changed) >= {
        n for n, p in module.initializers.items() if p.grad is not None and p.grad.abs().max() > 1e-5
    }
    if "batchnorm" in name:
        assert set(module.statistics) <= set(changed)
    save(model, tmp_path / "trained.onnx")
    after = make_session(tmp_path / "trained.onnx").run(None, {key: x})[0]
    (found,) = module.eval()({key: torch.from_numpy(x)}).values()
    np.testing.assert_allclose(found.detach().numpy(), after, atol=1e-4, rtol=0)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (ir.DataType.FLOAT16, np.float16),
        (ir.DataType.BFLOAT16, ml_dtypes.bfloat16),
        (ir.DataType.DOUBLE, np.float64),
        (ir.DataType.FLOAT, np.float32),
    ],
)
def test_element_types_survive(kind: ir.DataType, dtype: type) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    proto = small_graph([node], {"x": ["n", 3]}, ["y"], {"w": weight}, dtype=int(kind))
    proto.graph.initializer[0].doc_string = "kept"
    model = ir.serde.deserialize_model(proto)
    module = to_torch(model)
    assert write_back(module, model) == []
    with torch.no_grad():
        module.initializers["w"].mul_(2)
    assert write_back(module, model) == ["w"]
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None and tensor.dtype == kind and tensor.doc_string == "kept" and tensor.name == "w"
    np.testing.assert_array_equal(tensor.numpy().astype(np.float64), weight.astype(np.float64) * 2)


def test_another_model_is_refused_and_not_touched() -> None:
    module = to_torch(load(SAMPLES / "digits_mlp.onnx").model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    other = load(SAMPLES / "fashion_cnn.onnx").model
    with pytest.raises(ModelError, match="the weights do not fit this model: "):
        write_back(module, other)
    same = load(SAMPLES / "digits_mlp.onnx").model
    first = next(iter(module.initializers))
    value = same.graph.initializers[first]
    value.const_value = ir.tensor(np.zeros((1, 1), np.float32), name=first)
    others = {n: v.const_value for n, v in same.graph.initializers.items()}
    with pytest.raises(ModelError, match=f"'{first}' is 1x1, not "):
        write_back(module, same)
    assert all(same.graph.initializers[n].const_value is t for n, t in others.items())


def test_shared_weights_are_one_parameter() -> None:
    weight = np.eye(3, dtype=np.float32) * 2
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    module = to_torch(ir.serde.deserialize_model(small_graph(nodes, {"x": ["n", 3]}, ["y"], {"w": weight})))
    assert len(list(module.parameters())) == 1
    module({"x": torch.ones(1, 3)})["y"].sum().backward()
    torch.testing.assert_close(module.initializers["w"].grad, torch.full((3, 3), 4.0))


def test_types_of_inputs_are_fitted() -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    module = to_torch(
        ir.serde.deserialize_model(small_graph([node], {"x": ["n"]}, ["y"], {}, dtype=TensorProto.DOUBLE))
    )
    assert module({"x": torch.ones(2)})["y"].dtype is torch.float64
