"""A saved graph in torch computes what onnxruntime computes, for any batch, on any device, or is refused."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from train_models import module_of, one_node, run_ort, small_graph

from modelkit.errors import ModelError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.runtime import input_specs, make_session
from modelkit.train.module import GraphModule, to_torch

SAMPLES = Path(__file__).resolve().parent.parent.parent / "sample_models"
MODELS = sorted([*SAMPLES.glob("*.onnx"), *SAMPLES.glob("twins/*.onnx")])
REFUSED = {
    "digits_mlp_if": "no gradient for If",
    "fashion_cnn_qoperator": "no gradient for com.microsoft.QGemm, com.microsoft.QLinearAdd",
}


def tolerance(path: Path) -> float:
    """1e-4; where the output is quantized one of its steps, as integer kernels round some numbers to the next one."""
    graph = onnx.load(path, load_external_data=False).graph
    last = next((node for node in graph.node if graph.output[0].name in node.output), None)
    if last is None or last.op_type != "DequantizeLinear":
        return 1e-4
    scale = next(tensor for tensor in graph.initializer if tensor.name == last.input[1])
    return 1.001 * float(numpy_helper.to_array(scale))


def exact_session(path: Path) -> ort.InferenceSession:
    """A session whose integer kernels do not saturate, as they else do on processors that have AVX2 only."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    if "qdq" in path.stem:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def samples(path: Path, count: int) -> dict[str, np.ndarray]:
    stem = "_".join(path.stem.split("_")[:2])
    with np.load(SAMPLES / f"{stem}.calib.npz") as file:
        name = input_specs(make_session(path))[0].name
        return {name: file[name][:count]}


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("clean", [False, True], ids=["as it is", "normalised"])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_forward_is_onnxruntime(path: Path, clean: bool) -> None:
    model = load(path).model
    if clean:
        normalise(model)
    if path.stem in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[path.stem]):
            to_torch(model)
        return
    module = to_torch(model).eval()
    session = exact_session(path)
    batches = (1,) if path.stem.endswith("batch1") else (1, 5)
    for batch in batches:
        inputs = samples(path, batch)
        with torch.no_grad():
            outputs = module(tensors(inputs))
        wanted = session.run(None, inputs)
        assert list(outputs) == [o.name for o in session.get_outputs()]
        for found, expected in zip(outputs.values(), wanted, strict=True):
            np.testing.assert_allclose(found.numpy(), expected, atol=tolerance(path), rtol=0)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.onnx")), ids=lambda path: path.stem)
def test_every_weight_gets_a_gradient(path: Path) -> None:
    model = load(path).model
    normalise(model)
    module = to_torch(model).train()
    (output,) = module(tensors(samples(path, 4))).values()
    output.square().sum().backward()
    assert module.initializers
    for name, parameter in module.initializers.items():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert model.graph.initializers[name].const_value is not None
    numbers = sum(p.numel() for p in module.parameters())
    stored = sum(
        v.const_value.size
        for v in model.graph.initializers.values()
        if v.const_value and v.dtype == ir.DataType.FLOAT
    )
    assert numbers > 0.99 * stored


@pytest.mark.parametrize(
    "name", ["fashion_cnn", "language_gru", "language_transformer", "twins/language_transformer_opset13"]
)
def test_nothing_waits_for_the_device(name: str) -> None:
    """On the meta device no number can be read, and no tensor can meet one of another device."""
    module = to_torch(load(SAMPLES / f"{name}.onnx").model).to("meta").eval()
    kind = torch.int64 if "tokens" in module.input_names else torch.float32
    shape = (3, 64) if kind is torch.int64 else (3, 1, 28, 28)
    given = {module.input_names[0]: torch.zeros(shape, dtype=kind, device="meta")}
    (output,) = module(given).values()
    assert output.device.type == "meta" and output.shape[0] == 3


def two_problems() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Loop", ["n", "c", "x"], ["a"], body=helper.make_graph([], "body", [], [])),
        helper.make_node("NonMaxSuppression", ["a", "a"], ["b"]),
        helper.make_node("Fancy", ["b"], ["y"], domain="my.domain"),
    ]
    return small_graph(nodes, {"x": [2], "n": [], "c": []}, ["y"], {})


def test_all_unknown_operators_are_named_at_once() -> None:
    with pytest.raises(ModelError, match=r"no gradient for Loop, NonMaxSuppression, my\.domain\.Fancy") as caught:
        to_torch(ir.serde.deserialize_model(two_problems()))
    assert caught.value.hint is not None and "control flow" in caught.value.hint


def test_attributes_that_cannot_be_done_are_named_at_once() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], name="words", to=TensorProto.STRING),
        helper.make_node("LinearAttention", ["x", "x", "x"], ["y"], name="odd", update_rule="odd"),
    ]
    with pytest.raises(ModelError, match=r"Cast node 'words'.*string.*LinearAttention node 'odd'.*'odd'"):
        to_torch(ir.serde.deserialize_model(small_graph(nodes, {"x": [2]}, ["y"], {}, opset=28)))


def test_old_opsets_are_refused_where_operators_changed() -> None:
    x = np.zeros(2, np.float32)
    model, _ = one_node("Add", [x, x], opset=6)
    with pytest.raises(ModelError, match="in opset 6 Add meant something else"):
        module_of(model)
    model, feeds = one_node("Relu", [x], opset=6)
    assert module_of(model)({"x0": torch.from_numpy(feeds["x0"])})["y0"].shape == (2,)


@pytest.fixture
def digits() -> GraphModule:
    return to_torch(load(SAMPLES / "digits_mlp.onnx").model)


def test_wrong_inputs_are_named(digits: GraphModule) -> None:
    with pytest.raises(ModelError, match="'image' is missing, 'picture' is not an input"):
        digits({"picture": torch.zeros(1, 64)})
    with pytest.raises(ModelError, match=r"Gemm node '.*' cannot run: "):
        digits({"image": torch.zeros(1, 63)})


def test_names_that_python_does_not_allow(digits: GraphModule) -> None:
    assert set(digits.initializers) >= {"0.weight", "0.bias"}
    nodes = [helper.make_node("MatMul", ["x", "training"], ["a"]), helper.make_node("MatMul", ["a", "w.1"], ["b"])]
    nodes.append(helper.make_node("MatMul", ["b", "w_1"], ["y"]))
    weights = {name: np.full((2, 2), i + 1, np.float32) for i, name in enumerate(["training", "w.1", "w_1"])}
    module = module_of(small_graph(nodes, {"x": ["n", 2]}, ["y"], weights))
    assert {n: p.detach()[0, 0].item() for n, p in module.initializers.items()} == {"training": 1, "w.1": 2, "w_1": 3}


def test_a_copy_has_weights_of_its_own(digits: GraphModule) -> None:
    x = {"image": torch.rand(2, 64)}
    before = digits(x)["logits"]
    twin = copy.deepcopy(digits)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    assert torch.equal(digits(x)["logits"], before)
    assert not torch.allclose(twin(x)["logits"], before)
    twin.load_state_dict(digits.state_dict())
    assert torch.equal(twin(x)["logits"], before)


def test_constants_are_computed_once() -> None:
    """Of a subgraph that only depends on constants nothing is left; what depends on the batch stays."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Cast", ["half"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "target"], ["y"]),
    ]
    constants = {
        "zero": np.array(0),
        "axis": np.array([0]),
        "rest": np.array([-1]),
        "half": np.array(0.5, np.float64),
    }
    module = module_of(small_graph(nodes, {"x": ["n", 2, 3]}, ["y"], constants))
    assert len(module._program.steps) == 6
    for n in (1, 4):
        x = torch.rand(n, 2, 3)
        assert torch.equal(module({"x": x})["y"], x.reshape(n, 6) / 2)


def test_intermediate_values_are_freed() -> None:
    names = ["x", *(f"h{i}" for i in range(20))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    module = module_of(small_graph(nodes, {"x": ["n", 8]}, ["h19"], {}))
    freed = [slot for step in module._program.steps for slot in step.free]
    assert len(freed) == len(set(freed)) == 20


def test_halves_are_computed_in_float32() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float16)
    model = small_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ["n", 4]},
        ["y"],
        {"w": weight},
        dtype=TensorProto.FLOAT16,
    )
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float16)
    module = module_of(model)
    output = module({"x": torch.from_numpy(x)})["y"]
    assert output.dtype is torch.float32 and module.initializers["w"].dtype is torch.float32
    np.testing.assert_allclose(output.detach(), run_ort(model, {"x": x})[0], atol=1e-2)
    assert module_of(model, widen=False)({"x": torch.from_numpy(x)})["y"].dtype is torch.float16


def batch_norm_model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {
        "gamma": rng.uniform(0.5, 2, 3),
        "beta": rng.normal(size=3),
        "mean": rng.normal(size=3),
        "var": rng.uniform(0.5, 2, 3),
    }
    node = helper.make_node("BatchNormalization", ["x", *weights], ["y"], momentum=0.8, epsilon=1e-3)
    floats = {n: a.astype(np.float32) for n, a in weights.items()}
    return small_graph([node], {"x": ["n", 3, 4]}, ["y"], floats, opset=15)


def test_batch_norm_is_torchs() -> None:
    module = module_of(batch_norm_model())
    assert set(module.initializers) == {"gamma", "beta"} and set(module.statistics) == {"mean", "var"}
    layer = torch.nn.BatchNorm1d(3, eps=1e-3, momentum=0.2)
    with torch.no_grad():
        layer.weight.copy_(module.initializers["gamma"])
        layer.bias.copy_(module.initializers["beta"])
        layer.running_mean.copy_(module.statistics["mean"])  # type: ignore[union-attr]
        layer.running_var.copy_(module.statistics["var"])  # type: ignore[union-attr]
    x = torch.randn(5, 3, 4)
    for training in (True, False):
        module.train(training)
        layer.train(training)
        torch.testing.assert_close(module({"x": x})["y"], layer(x))
        torch.testing.assert_close(module.statistics["mean"], layer.running_mean)
        torch.testing.assert_close(module.statistics["var"], layer.running_var)


def test_dropout_drops_only_in_training() -> None:
    model, _ = one_node("Dropout", [np.ones(1000, np.float32), np.array(0.25, np.float32)], constants=(1,), opset=13)
    module = module_of(model)
    x = {"x0": torch.ones(1000)}
    assert torch.equal(module(x)["y0"], x["x0"])
    torch.manual_seed(0)
    dropped = module.train()(x)["y0"]
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 4 / 3]))
    assert 0.2 < float((dropped == 0).float().mean()) < 0.3


def test_what_is_trained_and_what_is_not() -> None:
    """Weights and shifts are; bounds, masks, first states, tables of angles and image means are not."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Sub", ["x", "image_mean"], ["a"]),
        helper.make_node("Transpose", ["kernel"], ["kernel_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "kernel_t"], ["b"]),
        helper.make_node("Add", ["b", "mask"], ["c"]),
        helper.make_node("Mul", ["c", "layer_scale"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["e"]),
        helper.make_node("Where", ["flags", "e", "other"], ["f"]),
        helper.make_node("PRelu", ["f", "slope"], ["g"]),
        helper.make_node("Pow", ["g", "powers"], ["y"]),
    ]
    weights = {
        "image_mean": rng.normal(size=4),
        "kernel": rng.normal(size=(4, 4)),
        "mask": np.array([0, 0, 0, -1e9]),
        "layer_scale": rng.normal(size=4),
        "half": np.array(0.5),
        "other": rng.normal(size=4),
        "slope": np.array([0.1]),
        "powers": np.array([1.0, 2, 1, 2]),
    }
    floats = {n: a.astype(np.float32) for n, a in weights.items()}
    floats["flags"] = np.array([True, True, False, True])
    module = module_of(small_graph(nodes, {"x": ["n", 4]}, ["y"], floats))
    assert set(module.initializers) == {"kernel", "layer_scale", "slope"}
