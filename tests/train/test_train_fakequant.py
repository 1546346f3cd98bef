"""Quantized graphs that learn: gradients by the papers' formulas, and what is trained is what runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from train_nets import SAMPLES

from modelkit.data.open import open_dataset
from modelkit.errors import DataError, ModelError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.runtime import input_specs, make_session
from modelkit.train.config import QuantizationAware
from modelkit.train.fakequant import FakeQuantModule, fake_quantized
from modelkit.train.module import write_back
from modelkit.train.qat import train_quantized
from modelkit.train.rounding import round_through
from modelkit.train.sites import find_sites
from modelkit.train.teacher import Teacher

rng = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def net(weight: np.ndarray, weight_scale: np.ndarray, zero: int = 0) -> ir.Model:
    """One Gemm between QuantizeLinear and DequantizeLinear; inputs and outputs of 0 to 255 steps."""
    per_channel = weight_scale.ndim == 1
    bias_scale = (np.float32(0.05) * weight_scale).astype(np.float32)
    constants = {
        "x.scale": np.float32(0.05),
        "x.zero": np.uint8(zero),
        "y.scale": np.float32(0.1),
        "y.zero": np.uint8(128),
        "w.q": weight,
        "w.scale": weight_scale,
        "w.zero": np.zeros(weight_scale.shape, np.int8),
        "b.q": np.array([100, -7000, 30], np.int32),
        "b.scale": bias_scale,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["x.int"]),
        helper.make_node("DequantizeLinear", ["x.int", "x.scale", "x.zero"], ["x.float"]),
        helper.make_node("DequantizeLinear", ["w.q", "w.scale", "w.zero"], ["w"], axis=0),
        helper.make_node("DequantizeLinear", ["b.q", "b.scale"], ["b"], **({"axis": 0} if per_channel else {})),
        helper.make_node("Gemm", ["x.float", "w", "b"], ["y.raw"], transB=1, name="gemm"),
        helper.make_node("QuantizeLinear", ["y.raw", "y.scale", "y.zero"], ["y.int"]),
        helper.make_node("DequantizeLinear", ["y.int", "y.scale", "y.zero"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 3))
    ]
    graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:], tensors)
    return ir.serde.deserialize_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    )


def small(**given: Any) -> ir.Model:
    return net(
        rng.integers(-127, 128, (3, 4)).astype(np.int8),
        rng.uniform(0.01, 0.02, 3).astype(np.float32),
        **given,
    )


def stored(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def output(module: FakeQuantModule, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        found = module({name: torch.from_numpy(array) for name, array in inputs.items()})
    return next(iter(found.values())).numpy()


@given(
    st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=20),
    st.floats(0.0625, 4, width=32),
    st.integers(2, 6),
    st.booleans(),
)
def test_gradients_are_those_of_learned_step_size(x: list[float], step: float, bits: int, signed: bool) -> None:
    """Esser et al., equations 1 to 3 and 5, written out."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    v, s = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (x, step))
    given = torch.arange(1, len(x) + 1, dtype=torch.float64)
    restored = s * round_through(v, s, low, high)
    (restored * given).sum().backward()
    ratio = np.array(x, dtype=np.float64) / step
    inside = (ratio > low) & (ratio < high)
    of_step = np.where(inside, np.rint(ratio) - ratio, np.where(ratio <= low, low, high))
    np.testing.assert_allclose(restored.detach().numpy(), np.rint(np.clip(ratio, low, high)) * step)
    np.testing.assert_allclose(v.grad.numpy(), np.where(inside, given.numpy(), 0.0), atol=1e-12)
    np.testing.assert_allclose(float(s.grad), (of_step * given.numpy()).sum(), rtol=1e-9, atol=1e-9)


def test_limits_and_steps_of_each_channel_have_the_same_gradients_as_one_by_one() -> None:
    x = torch.from_numpy(rng.normal(size=(3, 5)) * 3).requires_grad_()
    steps = torch.tensor([[0.5], [0.25], [1.0]], dtype=torch.float64, requires_grad=True)
    low, high = torch.tensor([[-4.0], [0.0], [-2.0]]), torch.tensor([[3.0], [7.0], [1.0]])
    (steps * round_through(x, steps, low.double(), high.double())).square().sum().backward()
    for row in range(3):
        one, step = (each.detach()[row].clone().requires_grad_() for each in (x, steps))
        (step * round_through(one, step, float(low[row]), float(high[row]))).square().sum().backward()
        torch.testing.assert_close(x.grad[row], one.grad)
        torch.testing.assert_close(steps.grad[row], step.grad)


@pytest.mark.parametrize("zero", [0, 100])
@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_trained_is_what_onnxruntime_runs(zero: int, bits: int) -> None:
    model, x = small(zero=zero), rng.normal(size=(64, 4)).astype(np.float32) * 4
    floats = {"w.q": rng.normal(size=(3, 4)).astype(np.float32)}
    module = fake_quantized(model, floats, bits=bits)
    with torch.no_grad():
        for weight in module.initializers.values():
            weight.add_(torch.from_numpy(rng.uniform(-0.2, 0.2, tuple(weight.shape)).astype(np.float32)))
    changed = write_back(module, model)
    assert set(changed) == {"x.scale", "y.scale", "w.q", "w.scale", "b.q", "b.scale"}
    np.testing.assert_allclose(output(module, {"x": x}), session_of(model, optimize=False).run(None, {"x": x})[0])
    assert np.abs(stored(model, "w.q")).max() <= 2 ** (bits - 1) - 1
    np.testing.assert_allclose(
        stored(model, "b.scale"), stored(model, "x.scale") * stored(model, "w.scale"), rtol=1e-6
    )
    again = fake_quantized(model, bits=bits)
    np.testing.assert_allclose(output(again, {"x": x}), output(module, {"x": x}), atol=1e-6)


def test_a_step_moves_in_proportion_and_its_gradient_is_weighed() -> None:
    model, x = small(), torch.from_numpy(rng.uniform(0, 12, (16, 4)).astype(np.float32))
    module = fake_quantized(model)
    module({"x": x})["y"].square().sum().backward()
    # In the logarithm the gradient is that of the step times the step; N is 4 for an input sample, top is 255.
    step = torch.tensor(0.05, requires_grad=True)
    weight, bias = (module.current()[name].detach() for name in ("w.q", "b.q"))
    scale = torch.from_numpy(stored(model, "w.scale").copy())
    restored = step * round_through(x, step, 0, 255)
    bias_float = bias * 0.05 * scale
    raw = restored @ (weight * scale[:, None]).T + bias_float
    y = 0.1 * round_through(raw, torch.tensor(0.1), -128, 127)
    y.square().sum().backward()
    found = module.initializers["x.scale"].grad
    assert float(found) == pytest.approx(float(step.grad) * 0.05 / np.sqrt(255 * 4), rel=1e-4)


def test_observed_steps_stay() -> None:
    model = small()
    module = fake_quantized(model, learn=False)
    assert set(module.initializers) == {"w.q", "b.q"}
    module({"x": torch.ones(2, 4)})["y"].sum().backward()
    before = {name: stored(model, name).copy() for name in ("x.scale", "w.scale", "b.scale")}
    with torch.no_grad():
        module.initializers["w.q"].mul_(0.5)
    assert write_back(module, model) == ["w.q"]
    assert all((stored(model, name) == array).all() for name, array in before.items())


def test_weights_of_other_tools_are_found_too() -> None:
    """Four bits as they are, unsigned with a zero point, one step for the whole tensor."""
    array = np.array([[-8, 7, 0, 1], [2, -3, 4, 5], [6, 1, -1, 0]])
    for kind, zero in ((ml_dtypes.int4, 0), (np.uint8, 77)):
        model = net((array + zero).astype(kind), np.array(0.02, np.float32))
        model.graph.initializers["w.zero"].const_value = ir.tensor(np.array(zero).astype(kind), name="w.zero")
        module = fake_quantized(model)
        x = rng.normal(size=(8, 4)).astype(np.float32) * 4
        np.testing.assert_allclose(output(module, {"x": x}), session_of(model, optimize=False).run(None, {"x": x})[0])
        np.testing.assert_allclose(module.initializers["w.q"].detach().numpy(), array * np.float32(0.02), rtol=1e-6)


def sample() -> tuple[ir.Model, Any]:
    """A model that another tool has quantized, and its calibration samples."""
    path = SAMPLES / "twins" / "fashion_cnn_qdq.onnx"
    model = load(path).model
    normalise(model)
    data = open_dataset(SAMPLES / "fashion_cnn.calib.npz", input_specs(make_session(path)))
    return model, data


def options(**given: Any) -> QuantizationAware:
    return QuantizationAware(**{"threads": 1, "device": "cpu", "epochs": 1, "learning_rate": 0.001, **given})


def coarsen(model: ir.Model, times: int) -> None:
    """Make the steps of all weights so many times wider."""
    for weight in find_sites(model.graph, 8).weights:
        integers, scale = stored(model, weight.stored), stored(model, weight.scale)
        fewer = np.rint(integers / times).astype(integers.dtype)
        model.graph.initializers[weight.stored].const_value = ir.tensor(fewer, name=weight.stored)
        model.graph.initializers[weight.scale].const_value = ir.tensor(scale * np.float32(times), name=weight.scale)


def test_a_model_quantized_elsewhere_comes_nearer_to_its_original() -> None:
    model, data = sample()
    coarsen(model, 16)
    part = data.subset(range(128))
    teacher = Teacher.load(SAMPLES / "fashion_cnn.onnx", threads=1)
    inputs = next(iter(data.subset(range(192, 320)).batches(128))).inputs
    wanted = teacher.run(inputs)["logits"]
    before = session_of(model).run(None, inputs)[0]
    decisions, history = train_quantized(model, part, options(alpha=0.0), bits=4, teacher=teacher)
    after = session_of(model).run(None, inputs)[0]
    assert history.best == 1 and history.metric == "agreement"
    assert np.square(after - wanted).mean() < 0.5 * np.square(before - wanted).mean()
    assert any("integers_changed" in decision.numbers for decision in decisions)
    assert any("relative_change" in decision.numbers for decision in decisions)


def test_what_training_cannot_better_stays_as_it_was() -> None:
    model, data = sample()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    teacher = Teacher.load(SAMPLES / "fashion_cnn.onnx", threads=1)
    decisions, history = train_quantized(model, data.subset(range(64)), options(epochs=0), teacher=teacher)
    assert decisions == [] and history.best == 0
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_pruned_weights_stay_zero() -> None:
    model, data = sample()
    module = fake_quantized(model)
    floats = {name: w.detach().numpy().copy() for name, w in module.initializers.items() if w.ndim > 1}
    for array in floats.values():
        array[np.abs(array) < np.quantile(np.abs(array), 0.5)] = 0
    train_quantized(model, data.subset(range(128)), options(), weights=floats)
    for name, array in floats.items():
        assert not stored(model, name)[array == 0].any() and stored(model, name).any()


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkit.train.state.EVERY_S", 0.0)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if stage.startswith("training") and done == 3:
            raise Killed

    found = []
    for folder in (None, tmp_path):
        model, data = sample()
        part = data.subset(range(96))
        if folder is not None:
            with pytest.raises(Killed):
                train_quantized(model, part, options(batch=16), progress=kill, folder=folder)
        train_quantized(model, part, options(batch=16), folder=folder)
        found.append(ir.to_proto(model).SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_what_cannot_be_trained_is_refused() -> None:
    model = load(SAMPLES / "digits_mlp.onnx").model
    with pytest.raises(ModelError, match="no layer of the graph multiplies by integer weights") as error:
        fake_quantized(model)
    assert error.value.hint
    quantized, data = sample()
    data.labels = None
    with pytest.raises(DataError, match="has no labels") as missing:
        train_quantized(quantized, data, options())
    assert missing.value.hint
