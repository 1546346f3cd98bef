"""The arithmetic: errors bounded by the step, zero exact, searches never worse, numpy and onnxruntime agree."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkit.quantize.affine import dequantize, quantize_array, sqnr_db

FINITE = st.floats(-1e4, 1e4, width=32)
BITS = st.integers(2, 8)
CENTERS = st.sampled_from(["zero", "range", "mean"])
SEARCHES = st.sampled_from(["minmax", "mse"])
LARGEST = float(np.finfo(np.float32).max)


@st.composite
def tensors(draw, elements=FINITE):
    """A tensor and the way in which its scales are shared."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=6))
    array = draw(hnp.arrays(np.float32, shape, elements=elements))
    kind = draw(st.sampled_from(["tensor", "channel", "block"]))
    axis = draw(st.integers(0, len(shape) - 1))
    if kind == "tensor":
        return array, {}
    if kind == "channel":
        return array, {"reduce_axes": tuple(i for i in range(len(shape)) if i != axis)}
    sizes = [size for size in range(1, shape[axis] + 1) if shape[axis] % size == 0]
    return array, {"block": (axis, draw(st.sampled_from(sizes)))}


def spread(quantized, numbers):
    """Give each element its scale or zero point."""
    if quantized.block is not None:
        numbers = np.repeat(numbers, quantized.block[1], axis=quantized.block[0])
    return np.broadcast_to(numbers, quantized.values.shape)


@settings(max_examples=300, deadline=None)
@given(case=tensors(), bits=BITS, center=CENTERS)
def test_error_is_at_most_half_a_step(case, bits, center):
    array, sharing = case
    quantized = quantize_array(array, bits=bits, center=center, **sharing)
    step = spread(quantized, quantized.scale).astype(np.float64)
    error = np.abs(dequantize(quantized).astype(np.float64) - array)
    assert (error <= step / 2 * (1 + 1e-4) + np.abs(array) * 1e-6).all()


@settings(max_examples=200, deadline=None)
@given(case=tensors(), bits=BITS, center=CENTERS)
def test_floor_never_rounds_up_and_is_less_than_a_step_off(case, bits, center):
    array, sharing = case
    quantized = quantize_array(array, bits=bits, center=center, rounding="floor", **sharing)
    step = spread(quantized, quantized.scale).astype(np.float64)
    error = dequantize(quantized).astype(np.float64) - array
    slack = step * 1e-3 + np.abs(array) * 1e-6
    assert (error >= -step - (step / 2 if center != "zero" else 0) - slack).all()
    # Only at the lower end of the integers, where floor would leave them, may a number grow.
    lowest = -(2 ** (bits - 1) - 1) if center == "zero" else 0
    inside = quantized.values > lowest
    assert (error[inside] <= slack[inside]).all()


@settings(max_examples=200, deadline=None)
@given(case=tensors(), bits=BITS, center=CENTERS, search=SEARCHES, floor=st.booleans())
def test_zero_is_exact_and_integers_stay_in_range(case, bits, center, search, floor):
    array, sharing = case
    rounding = "floor" if floor else "nearest"
    quantized = quantize_array(array, bits=bits, center=center, search=search, rounding=rounding, **sharing)
    restored = dequantize(quantized)
    assert (restored[array == 0] == 0).all()
    assert quantized.values.shape == array.shape
    assert quantized.scale.dtype == np.float32 and (quantized.scale > 0).all()
    if center == "zero":
        assert quantized.zero_point is None and quantized.values.dtype == np.int8
        assert np.abs(quantized.values.astype(int)).max() <= 2 ** (bits - 1) - 1
    else:
        assert quantized.values.dtype == quantized.zero_point.dtype == np.uint8
        assert quantized.zero_point.shape == quantized.scale.shape
        assert max(quantized.values.max(), quantized.zero_point.max()) <= 2**bits - 1


@settings(max_examples=200, deadline=None)
@given(case=tensors(), bits=BITS, center=CENTERS, floor=st.booleans())
def test_search_is_never_worse_than_minmax(case, bits, center, floor):
    array, sharing = case
    errors = {}
    for search in ("minmax", "mse"):
        rounding = "floor" if floor else "nearest"
        made = quantize_array(array, bits=bits, center=center, search=search, rounding=rounding, **sharing)
        errors[search] = np.square(dequantize(made).astype(np.float64) - array).sum()
    assert errors["mse"] <= errors["minmax"] * (1 + 1e-5) + 1e-12


@settings(max_examples=200, deadline=None)
@given(case=tensors(), bits=BITS, center=CENTERS, search=SEARCHES)
def test_what_was_quantized_once_stays(case, bits, center, search):
    """Numbers that lie on the grid come back as they are, whatever the range of the others."""
    array, sharing = case
    once = dequantize(quantize_array(array, bits=bits, center="zero", **sharing))
    twice = dequantize(quantize_array(once, bits=bits, center="zero", **sharing))
    np.testing.assert_allclose(twice, once, rtol=1e-5, atol=0)


@settings(max_examples=150, deadline=None)
@given(
    case=tensors(st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=True)),
    bits=BITS,
    center=CENTERS,
    search=SEARCHES,
    floor=st.booleans(),
)
def test_any_float_gives_finite_numbers_in_silence(case, bits, center, search, floor):
    array, sharing = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rounding = "floor" if floor else "nearest"
        quantized = quantize_array(array, bits=bits, center=center, search=search, rounding=rounding, **sharing)
        restored = dequantize(quantized)
    assert np.isfinite(quantized.scale).all() and np.isfinite(restored).all()


@pytest.mark.parametrize("center", ["zero", "range", "mean"])
@pytest.mark.parametrize("search", ["minmax", "mse"])
@pytest.mark.parametrize("number", [0.0, 1e-45, -1e-40, 3.25, -3.25, 1e30, -LARGEST, LARGEST])
def test_constant_slices(number, search, center):
    array = np.full((3, 4), number, dtype=np.float32)
    restored = dequantize(quantize_array(array, reduce_axes=(1,), center=center, search=search))
    if abs(number) < 1e-35:
        assert (restored == 0).all()
    else:
        np.testing.assert_allclose(restored, array, rtol=0.005)


def test_rows_do_not_disturb_each_other():
    array = np.array([[0.0, 0.0], [1e-6, -1e-6], [1e6, 5e5], [1e-42, 0.0]], dtype=np.float32)
    for search in ("minmax", "mse"):
        restored = dequantize(quantize_array(array, reduce_axes=(1,), search=search))
        np.testing.assert_allclose(restored[1:3], array[1:3], rtol=0.01)
        assert (restored[[0, 3]] == 0).all()


def test_floor_is_the_formula_of_the_literature():
    """Q(x) = floor(x·S + B)."""
    array = np.random.default_rng(0).uniform(-1, 3, 1000).astype(np.float32)
    quantized = quantize_array(array, center="range", rounding="floor")
    scaled = array / quantized.scale.reshape(()) + float(quantized.zero_point.reshape(()))
    np.testing.assert_array_equal(quantized.values, np.clip(np.floor(scaled), 0, 255))
    bias = (dequantize(quantized) - array).mean() / quantized.scale.reshape(())
    assert -0.6 < bias < -0.4


def test_mean_centre_puts_the_mean_in_the_middle():
    array = np.random.default_rng(0).normal(-0.2, 1, 4000).astype(np.float32)
    quantized = quantize_array(array, center="mean")
    middle = (127.5 - float(quantized.zero_point.reshape(()))) * quantized.scale.reshape(())
    assert abs(middle - array.mean()) < quantized.scale.reshape(())


def test_search_pays_with_outliers():
    array = np.random.default_rng(0).laplace(0, 1, (8, 4096)).astype(np.float32)
    plain = dequantize(quantize_array(array, bits=3, reduce_axes=(1,)))
    searched = dequantize(quantize_array(array, bits=3, reduce_axes=(1,), search="mse"))
    assert sqnr_db(array, searched) > sqnr_db(array, plain) + 3


@pytest.mark.parametrize("bits", range(3, 8))
def test_each_bit_adds_about_six_decibels(bits):
    array = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    few, more = (sqnr_db(array, dequantize(quantize_array(array, bits=b))) for b in (bits, bits + 1))
    assert 5 < more - few < 8


@pytest.mark.parametrize("bits", [-1, 0, 9, 16])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match=f"bits must be 1 to 8, not {bits}"):
        quantize_array(np.zeros(3, np.float32), bits=bits)


def test_block_that_does_not_divide():
    with pytest.raises(ValueError, match="axis 1 of length 10 is not a multiple of the block size 4"):
        quantize_array(np.zeros((2, 10), np.float32), block=(1, 4))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
@pytest.mark.parametrize("center", ["zero", "range", "mean"])
@pytest.mark.parametrize("search", ["minmax", "mse"])
def test_scalars_and_empty_tensors(shape, center, search):
    array = np.full(shape, 2.5, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restored = dequantize(quantize_array(array, center=center, search=search))
    assert restored.shape == shape
    np.testing.assert_allclose(restored, array, rtol=0.01)


def test_non_contiguous_and_other_float_types():
    array = np.random.default_rng(0).standard_normal((6, 4))
    expected = quantize_array(array.astype(np.float32).T.copy(), reduce_axes=(1,))
    for same in (array.T, np.asfortranarray(array.T), array.astype(np.float32).T):
        np.testing.assert_array_equal(quantize_array(same, reduce_axes=(1,)).values, expected.values)


def test_sqnr():
    one = np.ones(100, dtype=np.float32)
    assert sqnr_db(one, one) == float("inf")
    assert sqnr_db(one, one * np.float32(0.9)) == pytest.approx(20, abs=0.01)
    assert sqnr_db(one * 0, one) < -1000
