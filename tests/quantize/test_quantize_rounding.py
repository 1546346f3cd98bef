"""Rounding up or down: errors that cancel in kernels, and by what they do to a layer's outputs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantize_nets import Net, closeness, run

from modelkit.graph.layers import weight_uses
from modelkit.linear.grams import LayerGram
from modelkit.linear.matrix import layer_of
from modelkit.quantize.adaround import descend, round_by_outputs
from modelkit.quantize.affine import dequantize, quantize_array, sqnr_db
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.squant import cancel_errors
from modelkit.quantize.weights import quantize_weights

RNG = np.random.default_rng(3)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 8))
def test_errors_cancel_in_each_kernel(seed, positions, bits):
    rng = np.random.default_rng(seed)
    top = 2 ** (bits - 1) - 1
    wanted = rng.uniform(-top + 1, top - 1, (20, positions)).astype(np.float32)
    wanted[rng.random(wanted.shape) < 0.2] = 0
    nearest = np.rint(wanted)
    found = cancel_errors(wanted, nearest.copy(), -top, top)
    assert (np.abs(found - nearest) <= 1).all() and (np.abs(found) <= top).all()
    assert (found[wanted == 0] == 0).all(), "a pruned weight came back"
    moved = found != nearest
    assert (np.abs((wanted - found)[moved]) <= 1).all(), "rounded to the farther side but one"
    sums = np.abs((wanted - found).sum(axis=1))
    # What is exact cannot help; with room inside the range all others can.
    assert (sums <= 0.5 + 1e-3).all() and (sums <= np.abs((wanted - nearest).sum(axis=1)) + 1e-3).all()


def test_what_was_clipped_is_not_made_up_for():
    wanted = np.array([[9.0, 0.2, 0.2, 0.2]], np.float32)
    assert cancel_errors(wanted, np.array([[3.0, 0, 0, 0]], np.float32), -3, 3).tolist() == [[3, 1, 0, 0]]


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (8, 4, 5)])
def test_smooth_inputs_lose_less(shape):
    weight = RNG.standard_normal(shape).astype(np.float32)
    axes = tuple(range(1, len(shape)))
    one, two = (
        dequantize(quantize_array(weight, bits=4, reduce_axes=axes, rounding=rounding))
        for rounding in ("nearest", "squant")
    )
    places = tuple(range(2, len(shape)))
    by_mean = [sqnr_db(weight.sum(places), each.sum(places)) for each in (one, two)]
    assert by_mean[1] > by_mean[0] + 3
    assert sqnr_db(weight, two) > sqnr_db(weight, one) - 2


def test_matrices_have_no_kernels_to_cancel_in():
    weight = RNG.standard_normal((8, 40)).astype(np.float32)
    one, two = (quantize_array(weight, reduce_axes=(1,), rounding=each) for each in ("nearest", "squant"))
    assert np.array_equal(one.values, two.values)


def error_of(weights, integers, scales, moments):
    left = weights - integers * scales
    return np.einsum("oi,ij,oj->o", left, moments, left)


@given(st.integers(0, 1_000))
def test_moves_end_where_no_step_helps_and_near_the_best(seed):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((50, 5)) @ rng.standard_normal((5, 5))
    moments = inputs.T @ inputs / 50
    weights, scales = rng.uniform(-3, 3, (2, 5)), np.full((2, 5), 0.9)
    start = np.clip(np.rint(weights / scales), -3, 3)
    found = descend(weights, start.copy(), np.zeros_like(weights), scales, moments, -3, 3)
    error = error_of(weights, found, scales, moments)
    assert (error <= error_of(weights, start, scales, moments) + 1e-9).all()
    for place, step in itertools.product(range(5), (-1, 1)):
        other = found.copy()
        other[:, place] += step
        allowed = (np.abs(other) <= 3).all(axis=1) & (np.abs(weights - other * scales) < scales).all(axis=1)
        gained = error - error_of(weights, other, scales, moments)
        assert (gained[allowed] <= 1e-3 * (np.square(scales) * np.diag(moments)).mean()).all()


@pytest.mark.parametrize("inputs", [24, 600])
@pytest.mark.parametrize("center", ["zero", "range"])
def test_outputs_are_closer_than_by_the_nearest(inputs, center):
    net = Net(17, seed=2)
    net.input("x", ["n", inputs])
    net.add("Gemm", "x", net.weight(10, inputs, name="w"), transB=1, out="y")
    net.output("y", ["n", 10])
    model = net.build()
    [use] = [use for use in weight_uses(model) if use.value.name == "w"]
    layer = layer_of(use)
    mixed = RNG.standard_normal((400, 8)) @ RNG.standard_normal((8, inputs)) + 0.1 * RNG.standard_normal(
        (400, inputs)
    )
    gram = LayerGram()
    gram.add(mixed[:, None, :])
    plain = quantize_array(layer.array(), bits=4, reduce_axes=(1,), center=center)
    found = round_by_outputs(layer.array(), plain, layer, gram.xtx / gram.count)
    before, after = (
        sqnr_db(mixed @ layer.array().T, mixed @ dequantize(each).T.astype(np.float64)) for each in (plain, found)
    )
    assert after > before + 3
    assert found.values.dtype == plain.values.dtype and found.scale is plain.scale


def test_a_table_added_to_scores_takes_16_bits_and_others_eight():
    net = Net(17, seed=2)
    net.input("x", ["n", 64, 64])
    steep = np.linspace(-30, 0, 64 * 64, dtype=np.float32).reshape(64, 64)
    flat = np.linspace(-0.2, 0.2, 64 * 64, dtype=np.float32).reshape(64, 64)
    net.add("Add", "x", net.const(steep, "steep"), out="one")
    net.add("Add", "one", net.const(flat, "flat"), out="y")
    net.output("y", ["n", 64, 64])
    model = net.build()
    made = model.clone()
    options = {"include": [], "exclude": [], "fuse_matmul": False}
    decisions = quantize_weights(made, bits=8, options=WeightOptions(), **options)
    assert {d.target: d.numbers["bits"] for d in decisions} == {"flat": 8, "steep": 16}
    assert "too coarse" in next(d.reason for d in decisions if d.target == "steep")
    feeds = {"x": np.zeros((1, 64, 64), np.float32)}
    assert closeness(run(model, feeds), run(made, feeds)) > 60
