"""Ranges cut from histograms: against numpy, against onnxruntime's calibrator, and against their own claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkit.quantize.calibrate import BINS, Histogram
from modelkit.quantize.ranges import choose_range

METHODS = ["minmax", "percentile", "entropy", "mse"]
RNG = np.random.default_rng(3)
DATA = {
    "normal": RNG.standard_normal(50_000),
    "shifted": RNG.normal(2, 1, 50_000),
    "relu": np.maximum(RNG.standard_normal(50_000), 0),
    "laplace": RNG.laplace(0, 1, 50_000),
    "negative": -RNG.exponential(1, 50_000),
    "outlier": np.append(RNG.standard_normal(50_000), [300.0, -20.0]),
    "hardswish": (lambda x: x * np.clip(x + 3, 0, 6) / 6)(RNG.normal(0, 3, 50_000)),
}
DATA = {name: array.astype(np.float32) for name, array in DATA.items()}


def collect(array):
    histogram = Histogram()
    histogram.update(array)
    return histogram


def squared_error(array, low, high):
    """What 8 bits make of data in that range."""
    scale = (high - low) / 255 or 1.0
    zero = np.clip(np.rint(-low / scale), 0, 255)
    restored = (np.clip(np.rint(array.astype(np.float64) / scale + zero), 0, 255) - zero) * scale
    return np.square(restored - array).mean()


@settings(max_examples=200, deadline=None)
@given(
    array=hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)),
    method=st.sampled_from(METHODS),
    percentile=st.floats(51, 100),
)
def test_a_range_holds_zero_and_lies_within_the_data(array, method, percentile):
    low, high = choose_range(collect(array), method, percentile=percentile)
    assert min(array.min(), 0) <= low <= 0 <= high <= max(array.max(), 0)


@pytest.mark.parametrize("name", DATA)
def test_minmax_is_exact(name):
    array = DATA[name]
    assert choose_range(collect(array), "minmax") == (min(array.min(), 0), max(array.max(), 0))


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99, 100.0])
def test_percentile_is_numpys(name, percentile):
    array = DATA[name]
    histogram = collect(array)
    low, high = choose_range(histogram, "percentile", percentile=percentile)
    two_sided = array.min() < 0 < array.max()
    tail = (100 - percentile) / (2 if two_sided else 1)
    width, one = 2 * histogram.reach / BINS, 100 / array.size

    def between(value, at, clip):
        """One value more or less in the tail is a matter of definition."""
        ends = np.percentile(array, [max(at - one, 0), min(at + one, 100)], method="inverted_cdf")
        least, most = clip(ends, 0)
        return least - width <= value <= most + width

    assert high == 0 if array.max() <= 0 else between(high, 100 - tail, np.maximum)
    assert low == 0 if array.min() >= 0 else between(low, tail, np.minimum)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("percentile", [95.0, 99.9])
def test_percentile_keeps_that_share(name, percentile):
    array = DATA[name]
    low, high = choose_range(collect(array), "percentile", percentile=percentile)
    assert ((array >= low) & (array <= high)).mean() >= percentile / 100 - 1e-4


@pytest.mark.parametrize("name", DATA)
def test_mse_is_never_worse_than_minmax(name):
    array = DATA[name]
    histogram = collect(array)
    best = squared_error(array, *choose_range(histogram, "mse"))
    assert best <= squared_error(array, *choose_range(histogram, "minmax")) * 1.0001


@settings(max_examples=150, deadline=None)
@given(array=hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32)))
def test_mse_is_never_worse_in_expectation(array):
    histogram = collect(array)
    if histogram.reach == 0:
        return
    centers = np.repeat(histogram.centers(), histogram.counts)
    worst = squared_error(centers, *choose_range(histogram, "minmax"))
    assert squared_error(centers, *choose_range(histogram, "mse")) <= worst * (1 + 1e-9)


def test_mse_cuts_an_outlier_and_keeps_uniform_data():
    many = RNG.standard_normal(500_000).astype(np.float32)
    low, high = choose_range(collect(np.append(many, np.float32(300))), "mse")
    assert high < 250
    uniform = RNG.uniform(-1, 1, 50_000).astype(np.float32)
    low, high = choose_range(collect(uniform), "mse")
    assert low < -0.98 and high > 0.98


@pytest.mark.parametrize("name", ["normal", "laplace", "outlier", "shifted"])
def test_entropy_is_near_onnxruntimes(name):
    """Same idea, other bins: the thresholds must be of one size."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    array = DATA[name]
    collector = HistogramCollector(
        "entropy", scenario="same", symmetric=True, num_bins=2048, num_quantized_bins=128, percentile=99.99
    )
    collector.collect({"t": [array]})
    theirs = float(np.abs(collector.compute_collection_result()["t"][:2]).max())
    low, high = choose_range(collect(array), "entropy")
    assert theirs / 2.5 < max(-low, high) < theirs * 2.5


@pytest.mark.parametrize("name", DATA)
def test_entropy_loses_little(name):
    """Its aim is the distribution, not the squared error; but clipping must stay sane."""
    array = DATA[name]
    low, high = choose_range(collect(array), "entropy")
    inside = ((array >= low) & (array <= high)).mean()
    assert inside > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_one_sided_data_uses_all_integers(method):
    assert choose_range(collect(DATA["relu"]), method)[0] == 0
    assert choose_range(collect(DATA["negative"]), method)[1] == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [0.0, 3.0, -0.25, 1e-42, 1e30])
def test_constant_data(method, number):
    histogram = collect(np.full(100, number, np.float32))
    low, high = choose_range(histogram, method)
    width = 2 * histogram.reach / BINS
    assert abs(low - min(number, 0)) <= max(abs(number) * 0.3, width)
    assert abs(high - max(number, 0)) <= max(abs(number) * 0.3, width)


@pytest.mark.parametrize("method", METHODS)
def test_no_data(method):
    assert choose_range(Histogram(), method) == (0.0, 0.0)
