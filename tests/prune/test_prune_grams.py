"""Columns times matrices are what onnxruntime computes; Gram matrices are sums over those columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_nets import calibration, dataset_of, layers_of, one_layer, read

from modelkit.graph.run import session_of
from modelkit.linear import grams
from modelkit.linear.grams import LayerGram, collect, collect_beside
from modelkit.linear.matrix import readings_of

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def outputs(model, x):
    """What onnxruntime computes for the only layer, and what its columns and matrices give."""
    [layer] = layers_of(model)
    [reading] = readings_of(layer, model)
    columns = reading.columns(x)
    assert len(columns) == reading.rows(x)
    found = np.einsum("ngk,gok->ngo", columns, layer.matrices(layer.array()))
    return session_of(model).run(None, {"x": x})[0], found


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 2),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 2),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]),
)
def test_columns_of_convolutions(rank, group, stride, kernel, dilation, pads, auto):
    shape = (2, 4, *(9, 7)[:rank])
    attributes = {"group": group, "strides": [stride] * rank, "dilations": [dilation] * rank, "auto_pad": auto}
    if auto == "NOTSET":
        attributes["pads"] = pads[: 2 * rank]
    if auto.startswith("SAME"):
        attributes["dilations"] = [1] * rank
    weight = normal(8, 4 // group, *[kernel] * rank)
    x = normal(*shape)
    expected, found = outputs(one_layer("Conv", shape, {1: weight}, **attributes), x)
    places = np.moveaxis(expected, 1, -1).reshape(-1, group, 8 // group)
    np.testing.assert_allclose(found, places, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flip_x", [0, 1])
@pytest.mark.parametrize("flip_w", [0, 1])
@pytest.mark.parametrize("index", [0, 1])
def test_columns_of_gemm_on_either_side(index, flip_w, flip_x):
    # Y = X W [5, 3] with W [4, 3], or Y = W X [3, 5] with W [3, 4].
    weight = normal(*((4, 3) if index else (3, 4))[:: -1 if flip_w else 1])
    x = normal(*((5, 4) if index else (4, 5))[:: -1 if flip_x else 1])
    flips = {"transA": flip_x if index else flip_w, "transB": flip_w if index else flip_x}
    expected, found = outputs(one_layer("Gemm", x.shape, {index: weight}, **flips), x)
    np.testing.assert_allclose(found[:, 0], expected if index else expected.T, rtol=1e-4, atol=1e-5)


def test_columns_of_matmul_on_either_side():
    x = normal(2, 3, 5, 4)
    expected, found = outputs(one_layer("MatMul", x.shape, {1: normal(4, 6)}), x)
    np.testing.assert_allclose(found[:, 0], expected.reshape(-1, 6), rtol=1e-4, atol=1e-5)
    x = normal(2, 4, 5)
    expected, found = outputs(one_layer("MatMul", x.shape, {0: normal(6, 4)}), x)
    np.testing.assert_allclose(found[:, 0], expected.transpose(0, 2, 1).reshape(-1, 6), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_columns_of_a_recurrence(direction):
    # h' = tanh(W x + R h): the atanh of the states is the sum of what both weights give.
    count = 1 + (direction == "bidirectional")
    x = 0.3 * normal(6, 2, 3)
    weights = {1: 0.3 * normal(count, 4, 3), 2: 0.3 * normal(count, 4, 4)}
    model = one_layer("RNN", x.shape, weights, hidden_size=4, direction=direction)
    states = session_of(model).run(None, {"x": x})[0]
    inner, outer = layers_of(model)
    ways = [readings_of(layer, model)[0] for layer in (inner, outer)]
    by_input = np.einsum("ngk,gok->ngo", ways[0].columns(x), weights[1]).reshape(6, 2, count, 4)
    by_state = np.einsum("ngk,gok->ngo", ways[1].columns(states), weights[2]).reshape(5, 2, count, 4)
    expected = np.arctanh(states.transpose(0, 2, 1, 3))
    backward = {"forward": [], "reverse": [0], "bidirectional": [1]}[direction]
    for way in range(count):
        now = slice(None, -1) if way in backward else slice(1, None)
        found = by_input[now, :, way] + by_state[:, :, way]
        np.testing.assert_allclose(found, expected[now, :, way], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("op", "shape", "weights", "attributes"),
    [
        ("Conv", (1, 4, 5, 5), {1: (6, 2, 3, 3)}, {"group": 2}),
        ("ConvTranspose", (1, 4, 5, 5), {1: (4, 3, 3, 3)}, {"group": 2}),
        ("MatMul", (2, 5, 4), {1: (2, 4, 3)}, {}),
        ("Gemm", (5, 4), {1: (4, 3)}, {}),
        ("GRU", (6, 2, 3), {1: (1, 12, 3), 2: (1, 12, 4)}, {"hidden_size": 4}),
    ],
)
def test_matrices_come_back_as_they_were(op, shape, weights, attributes):
    model = one_layer(op, shape, {i: normal(*dims) for i, dims in weights.items()}, **attributes)
    for layer in layers_of(model):
        array = layer.array()
        matrices = layer.matrices(array)
        assert matrices.shape == (layer.groups, layer.outputs, layer.inputs) and layer.inputs % layer.run == 0
        np.testing.assert_array_equal(layer.stored(matrices), array)


def test_what_cannot_be_observed_says_why():
    model = one_layer("ConvTranspose", (1, 4, 5, 5), {1: normal(4, 3, 3, 3)})
    [layer] = layers_of(model)
    assert readings_of(layer, model) == "the inputs of ConvTranspose cannot be unfolded"
    assert collect(model, [layer], dataset_of(normal(3, 4, 5, 5)), limit=3) == {}


def test_gram_is_the_sum_over_all_samples():
    x = normal(150, 4)
    model = one_layer("Gemm", ("n", 4), {1: normal(4, 3)})
    gram = collect(model, layers_of(model), dataset_of(x), limit=130)["w1"]
    x = x[:130].astype(np.float64)
    np.testing.assert_allclose(gram.xtx[0], x.T @ x, rtol=1e-12)
    np.testing.assert_allclose(gram.squares[0], np.square(x).sum(0), rtol=1e-12)
    np.testing.assert_allclose(gram.mean[0], x.mean(0), rtol=1e-12)
    assert gram.count == 130 and gram.cross is None


def test_cross_gram_is_with_what_the_original_gives_in_the_same_places(monkeypatch):
    monkeypatch.setattr(grams, "MOST_ROWS", 500)
    model, data = read("fashion_cnn"), calibration("fashion_cnn", 70)
    for layer in layers_of(model):
        if layer.name not in ("3.weight", "9.body.0.weight", "19.weight"):
            continue
        weights = {layer.name: layer.matrices(layer.array())}
        gram = collect_beside(model, model.clone(), [layer], weights, data, limit=70)[layer.name]
        # Nothing was pruned yet: Y = W X.
        expected = gram.xtx @ weights[layer.name].transpose(0, 2, 1)
        np.testing.assert_allclose(gram.cross, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        outputs = np.einsum("goi,gi->go", weights[layer.name], gram.total)
        np.testing.assert_allclose(gram.other_total, outputs, rtol=1e-3, atol=1e-3 * np.abs(outputs).max())


def test_layers_that_read_the_same_get_their_own_targets():
    model, data = read("language_transformer"), calibration("language_transformer", 20)
    query, key = (
        layer for layer in layers_of(model) if layer.name in ("layers.1.query.weight", "layers.1.key.weight")
    )
    weights = {layer.name: layer.matrices(layer.array()) for layer in (query, key)}
    both = collect_beside(model, model.clone(), [query, key], weights, data, limit=20)
    alone = collect_beside(model, model.clone(), [key], weights, data, limit=20)
    np.testing.assert_allclose(both[key.name].cross, alone[key.name].cross, rtol=1e-7, atol=1e-4)
    assert both[query.name].xtx is both[key.name].xtx


def test_thinning_out_is_even_and_repeatable(monkeypatch):
    model, data = read("fashion_cnn"), calibration("fashion_cnn", 96)
    layers = layers_of(model)[:3]
    everything = collect(model, layers, data, limit=96)
    monkeypatch.setattr(grams, "MOST_ROWS", 4000)
    some, again = collect(model, layers, data, limit=96), collect(model, layers, data, limit=96, full=False)
    for name, gram in some.items():
        assert 4000 <= gram.count <= 6000 < everything[name].count
        assert again[name].xtx is None
        np.testing.assert_array_equal(again[name].squares, gram.squares)
        full = everything[name]
        error = np.abs(gram.squares / gram.count - full.squares / full.count).max()
        assert error < 0.1 * (full.squares / full.count).max()


def test_layers_that_read_the_same_share_the_work():
    model = read("language_transformer")
    found = collect(model, layers_of(model), calibration("language_transformer", 20), limit=20)
    assert len(found) == 13
    assert found["layers.0.query.weight"] is found["layers.0.key.weight"]
    assert found["layers.0.query.weight"] is not found["layers.1.key.weight"]


def test_others_may_be_anything_with_the_same_rows():
    gram = LayerGram()
    x, y = normal(7, 2, 3), normal(7, 2, 5)
    gram.add(x, y)
    np.testing.assert_allclose(gram.cross, np.einsum("ngk,ngo->gko", x, y), rtol=1e-4, atol=1e-5)
