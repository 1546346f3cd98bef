"""Single weights of whole models: what methods reach on the samples, what stays as it was, and what is refused."""

from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from sparse_nets import SAMPLES, accuracy, arrays, calibration, dataset_of, layers_of, one_layer, read

from modelkit import api
from modelkit.data.arrays import from_arrays
from modelkit.errors import ConfigError, ModelError, UsageError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.graph.save import save
from modelkit.linear import grams
from modelkit.prune.auto import Pruner
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights import layerwise
from modelkit.prune.weights.masks import count_of
from modelkit.prune.weights.schedule import prune_gradually
from modelkit.runtime import input_specs

rng = np.random.default_rng(0)
METHODS = ("magnitude", "wanda", "obs")
QUICK = {"measure.seconds": 0.02}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Fewer places of each image: enough for these small layers."""
    monkeypatch.setattr(grams, "MOST_ROWS", 4096)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def pruned(name, method, count=256, **options):
    model = read(name)
    decisions = prune_gradually(model, PruneConfig(**options), calibration(name, count), method=method)
    return model, {decision.target: decision for decision in decisions}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["digits_mlp", "fashion_cnn", "language_gru"])
def test_each_layer_reaches_the_sparsity(name, method):
    model, decisions = pruned(name, method, count=32, sparsity=0.8)
    for layer in layers_of(model):
        array = layer.array()
        assert (array == 0).sum() == count_of(0.8, array.size), layer.name
        assert decisions[layer.name].action == "pruned"
        assert decisions[layer.name].numbers["zeros"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("name", "floor"), [("digits_mlp", 0.95), ("language_gru", 0.90)])
def test_the_surgeon_loses_least(name, floor):
    found = [accuracy(pruned(name, method, 512, sparsity=0.8)[0], name) for method in METHODS]
    assert found[2] > max(found[:2]) and found[2] >= floor


def test_the_surgeon_absorbs_what_earlier_layers_lost():
    """Half of a residual network's weights: by the others it is destroyed."""
    found = {method: accuracy(pruned("fashion_cnn", method, sparsity=0.5)[0], "fashion_cnn") for method in METHODS}
    assert found["magnitude"] < 0.5 and found["wanda"] < 0.6 and found["obs"] > 0.87


def test_all_layers_together_spare_what_is_dear():
    own, _ = pruned("fashion_cnn", "obs", 128, sparsity=0.8)
    together, decisions = pruned("fashion_cnn", "obs", 128, sparsity=0.8, scope="global")
    layers = layers_of(together)
    zeros = sum(int((layer.array() == 0).sum()) for layer in layers)
    assert zeros == pytest.approx(0.8 * sum(layer.array().size for layer in layers), abs=2 * len(layers))
    shares = [decisions[layer.name].numbers["zeros"] for layer in layers]
    assert max(shares) - min(shares) > 0.2
    assert accuracy(together, "fashion_cnn") > accuracy(own, "fashion_cnn")


@pytest.mark.parametrize("method", METHODS)
def test_two_of_four_along_the_input_channels(method):
    model, _ = pruned("fashion_cnn", method, count=32, pattern="2:4")
    for layer in layers_of(model):
        array = layer.array()
        for start in range(0, array.shape[1], 4):
            part = array[:, start : start + 4]
            assert ((part != 0).sum(axis=1) == min(2, part.shape[1])).all()


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_outputs(method):
    model, _ = pruned("digits_mlp", method, count=32, pattern="4x2", sparsity=0.5)
    for layer in layers_of(model):
        outputs = layer.outputs // 4 * 4
        blocks = (layer.array()[:outputs] == 0).reshape(outputs // 4, 4, -1, 2).mean(axis=(1, 3))
        assert set(np.unique(blocks)) == {0.0, 1.0} and (layer.array() == 0).mean() > 0.45


@pytest.mark.parametrize("method", METHODS)
def test_zeros_that_are_there_count_and_stay(method):
    model = read("digits_mlp")
    data = calibration("digits_mlp", 64)
    prune_gradually(model, PruneConfig(sparsity=0.6), data, method="magnitude")
    before = {layer.name: layer.array() for layer in layers_of(model)}
    again = model.clone()
    prune_gradually(again, PruneConfig(sparsity=0.7), data, method=method)
    for layer in layers_of(again):
        assert not layer.array()[before[layer.name] == 0].any()
        gone = (layer.array() == 0).sum() - count_of(0.7, layer.array().size)
        # By rows some lost more than that before.
        assert gone == 0 or (method == "wanda" and 0 < gone < 0.1 * layer.array().size)
    prune_gradually(model, PruneConfig(sparsity=0.3), data, method=method)
    for layer in layers_of(model):
        more = (layer.array() == 0) & (before[layer.name] != 0)
        assert not layer.array()[before[layer.name] == 0].any()
        assert not more.any() or (method == "wanda" and more.mean() < 0.1)


def test_steps_go_along_the_schedule_and_train_in_between():
    model, seen = read("digits_mlp"), []

    def finetune(model, masks):
        seen.append({name: mask.copy() for name, mask in masks.items()})
        for layer in layers_of(model):
            np.testing.assert_array_equal(layer.array() != 0, masks[layer.name])
        return []

    prune_gradually(model, PruneConfig(sparsity=0.8, steps=3), None, finetune)
    shares = [1 - masks["2.weight"].mean() for masks in seen]
    assert shares == pytest.approx([0.8 * (1 - (1 - t / 3) ** 3) for t in (1, 2, 3)], abs=1e-4)
    for earlier, later in pairwise(seen):
        assert all(not (later[name] & ~earlier[name]).any() for name in later)


@pytest.mark.parametrize("method", ["wanda", "obs"])
def test_the_same_bytes_every_time(method, tmp_path):
    for number in (1, 2):
        save(pruned("fashion_cnn", method, count=64, sparsity=0.5)[0], tmp_path / f"{number}.onnx")
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


@pytest.mark.parametrize("path", sorted((SAMPLES / "twins").glob("*.onnx")), ids=lambda path: path.stem)
def test_awkward_twins_are_pruned_or_refused(path):
    model = load(path).model
    normalise(model)
    name = next(name for name in ("digits_mlp", "fashion_cnn", "language_transformer") if path.stem.startswith(name))
    [(key, x)] = ((key, value) for key, value in arrays(name, "calib", 16).items() if key != "labels")
    data = from_arrays({key: x}, input_specs(session_of(model)))
    feeds = next(data.batches(1)).inputs
    config = PruneConfig(sparsity=0.5, method="obs")
    try:
        [*ways] = Pruner(model, config, data).candidates()
    except ModelError as error:
        assert "already quantized" in error.message
        return
    for way in ways:
        changed = model.clone()
        decisions = way.apply(changed, lambda *_: None)
        assert any(decision.action == "pruned" for decision in decisions)
        assert all(np.isfinite(out).all() for out in session_of(changed).run(None, dict(feeds)))


def test_layers_that_cannot_be_observed_are_pruned_by_magnitude():
    model = one_layer("ConvTranspose", ("n", 4, 5, 5), {1: normal(4, 3, 3, 3)})
    for method in ("wanda", "obs"):
        changed = model.clone()
        data = dataset_of(normal(8, 4, 5, 5))
        [decision] = prune_gradually(changed, PruneConfig(sparsity=0.5), data, method=method)
        assert decision.action == "pruned"
        assert decision.reason == "by magnitude: the inputs of ConvTranspose cannot be unfolded"
        assert (layers_of(changed)[0].array() == 0).sum() == 54


def test_a_layer_that_is_too_wide_goes_by_wanda(monkeypatch):
    monkeypatch.setattr(layerwise, "MOST_INPUTS", 100)
    _, decisions = pruned("digits_mlp", "obs", count=32, sparsity=0.5)
    assert decisions["2.weight"].reason.startswith("by wanda: the moments of 256 inputs")
    assert "output_error" in decisions["0.weight"].numbers


def test_a_bias_takes_over_the_mean():
    # All inputs are near 5, and there is no bias yet: zeroed weights shift the outputs until one makes up for it.
    x = 5 + 0.1 * normal(100, 8)
    model = one_layer("Gemm", ("n", 8), {1: normal(8, 3)})
    expected = session_of(model).run(None, {"x": x})[0]
    prune_gradually(model, PruneConfig(sparsity=0.75), dataset_of(x), method="obs")
    found = session_of(model).run(None, {"x": x})[0]
    assert np.abs((found - expected).mean(axis=0)).max() < 1e-3
    assert "w1.bias" in model.graph.initializers


def test_every_float_type_keeps_its_type():
    for dtype in (np.float64, np.float16):
        model = one_layer("MatMul", ("n", 8), {1: normal(8, 6).astype(dtype)})
        graph = model.graph
        assert graph.initializers["w1"].const_value.numpy().dtype == dtype
        prune_gradually(model, PruneConfig(sparsity=0.5), None)
        array = graph.initializers["w1"].const_value.numpy()
        assert array.dtype == dtype and (array == 0).sum() == 24


def test_weights_with_nan_are_left_alone():
    weights = normal(8, 6)
    weights[0, 0] = np.nan
    model = one_layer("Gemm", ("n", 8), {1: weights})
    with pytest.raises(ModelError, match="holds infinite values or NaN"):
        Pruner(model, PruneConfig(sparsity=0.5), None).candidates()


@pytest.mark.parametrize("method", ["wanda", "obs"])
def test_methods_that_look_at_data_need_some(method):
    with pytest.raises(UsageError, match=f"method {method} .* needs data") as error:
        Pruner(read("digits_mlp"), PruneConfig(sparsity=0.5, method=method), None).candidates()
    assert "--data" in error.value.hint


def test_what_auto_tries():
    model, data = read("digits_mlp"), calibration("digits_mlp", 32)

    def names(data, **options):
        return [way.name for way in Pruner(model, PruneConfig(**options), data).candidates()]

    assert names(None, sparsity=0.5) == ["magnitude"]
    assert names(data, threshold=0.01) == ["magnitude"]
    both = ["wanda", "wanda, all layers together", "obs", "obs, all layers together"]
    assert names(data, sparsity=0.5) == ["magnitude", *both]
    assert names(data, sparsity=0.5, scope="layer") == ["magnitude", "wanda", "obs"]
    assert names(data, pattern="2:4") == ["magnitude", "wanda", "obs"]
    assert names(data, sparsity=0.5, method="obs", scope="global") == ["obs"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"threshold": 100}, UsageError, "no weight of '0.weight' would be left"),
        ({"sparsity": 0.5, "include": ["*2.weigth"]}, UsageError, "matches no weight or layer"),
        ({"sparsity": 1.0}, ConfigError, "not less than 1"),
        ({"sparsity": 0.5, "channels": 0.5}, ConfigError, "give one of them"),
        ({"pattern": "4:2"}, ConfigError, "N must be below M"),
        ({"pattern": "2:4", "sparsity": 0.5}, ConfigError, "itself says how many"),
    ],
)
def test_bad_requests(options, error, words, tmp_path):
    with pytest.raises(error) as caught:
        api.prune(SAMPLES / "digits_mlp.onnx", output=tmp_path / "x.onnx", config={**options, **QUICK})
    told = [caught.value.message, str(caught.value.hint), *getattr(caught.value, "problems", [])]
    assert words in " ".join(told) and not list(tmp_path.iterdir())


def test_the_command_keeps_the_most_faithful(tmp_path):
    report = api.prune(
        SAMPLES / "digits_mlp.onnx",
        output=tmp_path / "x.onnx",
        data=SAMPLES / "digits_mlp.calib.npz",
        test=SAMPLES / "digits_mlp.eval.npz",
        config={"sparsity": 0.8, **QUICK},
    )
    assert report.method.startswith("obs")
    assert len(report.candidates) == 5
    assert report.before.quality["accuracy"] - report.after.quality["accuracy"] < 0.03


def test_a_matrix_that_comes_first():
    """Y = W X, as some exporters write it."""
    weights, x = normal(6, 8), normal(10, 8, 5)
    node = helper.make_node("MatMul", ["w", "x"], ["y"])
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 8, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    import onnx_ir as ir

    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    lost = {}
    expected = weights @ x
    for method in METHODS:
        model = ir.serde.deserialize_model(made)
        prune_gradually(model, PruneConfig(sparsity=0.5), dataset_of(x), method=method)
        lost[method] = float(np.square(session_of(model).run(None, {"x": x})[0] - expected).sum())
    assert lost["obs"] < lost["wanda"] and lost["obs"] < lost["magnitude"]
