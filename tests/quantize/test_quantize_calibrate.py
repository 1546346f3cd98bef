"""Calibration: one pass over everything, the same for any order, batch size and split, in constant memory."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from quantize_nets import INT64, Net, batches

from modelkit.algorithm import activations
from modelkit.data.dataset import Batch
from modelkit.errors import DataError
from modelkit.quantize.calibrate import BINS, Histogram, observe

LARGEST = float(np.finfo(np.float32).max)
ANY = st.one_of(
    st.floats(-10, 10, width=32),
    st.floats(-LARGEST, LARGEST, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 4.0, -4.0, 1e-45, -1e-30, LARGEST]),
)
ARRAYS = hnp.arrays(np.float32, st.integers(0, 40), elements=ANY)


def collect(*arrays):
    histogram = Histogram()
    for array in arrays:
        histogram.update(array)
    return histogram


def same(a, b):
    assert (a.reach, a.low, a.high, a.zeros) == (b.reach, b.low, b.high, b.zeros)
    np.testing.assert_array_equal(a.counts, b.counts)


@settings(max_examples=150, deadline=None)
@given(array=ARRAYS, random=st.randoms(use_true_random=False), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_order_and_batches_do_not_matter(array, random, cuts):
    whole = collect(array)
    shuffled = array.copy()
    random.shuffle(shuffled)
    same(collect(*np.split(shuffled, sorted(min(cut, len(array)) for cut in cuts))), whole)


@settings(max_examples=150, deadline=None)
@given(array=ARRAYS)
def test_every_value_is_counted_in_its_bin(array):
    histogram = collect(array)
    assert histogram.counts.sum() + histogram.zeros == array.size
    if not array.size:
        return
    assert (histogram.low, histogram.high) == (array.min(), array.max())
    nonzero = array[array != 0]
    if not nonzero.size:
        assert histogram.reach == 0
        return
    assert histogram.reach > float(np.abs(array).max())
    edges = np.linspace(-histogram.reach, histogram.reach, BINS + 1)
    # numpy counts the right edge of the last bin too; nothing lies there.
    expected, _ = np.histogram(nonzero.astype(np.float64), bins=edges)
    np.testing.assert_array_equal(histogram.counts, expected)


def test_resolution_is_a_fine_part_of_the_range():
    array = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    histogram = collect(array)
    assert histogram.reach < 2 * np.abs(array).max() * 1.0001
    assert np.diff(histogram.centers())[0] == 2 * histogram.reach / BINS


def conv_net(batch="n", size=12):
    net = Net(13, seed=2)
    net.input("x", [batch, 3, size, size])
    a = net.add("Relu", net.conv("x", 3, 8), out="a")
    b = net.add("MaxPool", net.conv(a, 8, 8), kernel_shape=[2, 2], strides=[2, 2], out="b")
    net.add("Flatten", b, out="y")
    net.output("y", [batch, 8 * (size // 2) ** 2])
    return net.build()


NAMES = ["x", "a", "b", "y"]


def images(count, size=12):
    return np.random.default_rng(5).standard_normal((count, 3, size, size)).astype(np.float32)


def feed(array, size):
    return batches(*({"x": array[i : i + size]} for i in range(0, len(array), size)))


def test_ranges_are_those_of_the_outputs():
    model, x = conv_net(), images(10)
    from modelkit.graph.run import session_of

    outputs = session_of(model, extra_outputs=["a", "b"]).run(["a", "b", "y"], {"x": x})
    seen = observe(model, NAMES, feed(x, 4), count=10)
    for name, array in zip(NAMES, [x, *outputs], strict=True):
        assert (seen[name].low, seen[name].high) == (array.min(), array.max())
        assert seen[name].counts.sum() + seen[name].zeros == array.size
        same(seen[name], collect(array))


@pytest.mark.parametrize("size", [1, 3, 10])
def test_batch_size_does_not_matter(size):
    model, x = conv_net(), images(10)
    one, other = (observe(model, NAMES, feed(x, s), count=10) for s in (4, size))
    for name in NAMES:
        same(one[name], other[name])


@pytest.mark.parametrize("limit", [1, 9_300, 40_000])
def test_taking_the_outputs_in_parts_gives_the_same(limit, monkeypatch):
    model, x = conv_net(), images(6)
    expected = observe(model, NAMES, feed(x, 2), count=6)
    passes = []

    def counted():
        passes.append(1)
        return feed(x, 2)()

    monkeypatch.setattr(activations, "CHUNK_BYTES", limit)
    steps = []
    found = observe(model, NAMES, counted, count=6, progress=lambda *step: steps.append(step[1:]))
    assert len(passes) - 1 == {1: 3, 9_300: 2, 40_000: 1}[limit]
    assert steps[-1][0] == steps[-1][1] and [s[0] for s in steps] == sorted(s[0] for s in steps)
    for name in NAMES:
        same(found[name], expected[name])


def test_parts_are_sized_by_the_data_where_the_graph_leaves_dimensions_open(monkeypatch):
    net = Net(13)
    net.input("x", ["n", 3, "h", "w"])
    y = net.add("Relu", net.conv("x", 3, 4), out="a")
    net.add("Sigmoid", y, out="y")
    net.output("y", ["n", 4, "h", "w"])
    model = net.build()
    small, large = (np.zeros((2, 3, s, s), np.float32) for s in (8, 64))
    monkeypatch.setattr(activations, "CHUNK_BYTES", 2 * 4 * 64 * 64 * 4)
    assert len(activations._parts(model, ["a", "y"], {"x": small})) == 1
    assert len(activations._parts(model, ["a", "y"], {"x": large})) == 2


def test_variable_shapes():
    net = Net(13)
    net.input("x", ["n", 3, "h", "w"])
    net.add("Relu", net.conv("x", 3, 4), out="y")
    net.output("y", ["n", 4, "h", "w"])
    model = net.build()
    arrays = [images(2, 8), images(1, 20), images(3, 5)]
    seen = observe(model, ["x", "y"], batches(*({"x": a} for a in arrays)), count=6)
    same(seen["x"], collect(*arrays))
    assert seen["y"].counts.sum() + seen["y"].zeros == sum(4 * a.size // 3 for a in arrays)


def test_padding_of_a_fixed_batch_is_not_counted():
    model, x = conv_net(batch=4), images(6)
    last = np.concatenate([x[4:], np.repeat(x[5:], 2, axis=0)])
    first = Batch({"x": x[:4]}, None, 4)
    seen = observe(model, NAMES, lambda: iter([first, Batch({"x": last}, None, 2)]), count=6)
    expected = observe(conv_net(), NAMES, feed(x, 6), count=6)
    for name in NAMES:
        same(seen[name], expected[name])


def test_time_on_the_first_axis_is_no_padding():
    net = Net(13)
    net.input("x", ["t", "batch", 4])
    net.add("Tanh", "x", out="y")
    net.output("y", ["t", "batch", 4])
    model, x = net.build(), np.random.default_rng(0).standard_normal((7, 2, 4)).astype(np.float32)
    seen = observe(model, ["x", "y"], lambda: iter([Batch({"x": x}, None, 2, {"x": 1})]), count=2)
    assert seen["x"].counts.sum() == seen["y"].counts.sum() == 56


def test_several_inputs_of_which_one_is_not_observed():
    net = Net(13)
    net.input("ids", ["n", "t"], INT64)
    net.input("x", ["n", "t", 8])
    net.add("Add", net.add("Gather", net.weight(10, 8), "ids"), "x", out="y")
    net.output("y", ["n", "t", 8])
    model = net.build()
    data = {"ids": np.zeros((2, 3), np.int64), "x": np.ones((2, 3, 8), np.float32)}
    seen = observe(model, ["x"], batches(data), count=2)
    assert list(seen) == ["x"] and seen["x"].high == 1
    assert observe(model, [], batches(data), count=2) == {}


def test_an_infinite_activation_is_named():
    net = Net(13)
    net.input("x", ["n", 4])
    net.add("Exp", "x", out="boom")
    net.add("Tanh", "boom", out="y")
    net.output("y", ["n", 4])
    x = np.zeros((6, 4), np.float32)
    x[5] = 1000
    with pytest.raises(DataError) as caught:
        observe(net.build(), ["boom", "y"], feed(x, 2), count=6)
    assert caught.value.message == "the activation 'boom' is infinite or NaN near calibration sample 4"
    assert caught.value.hint == "check the inputs' scale: does the model expect them normalised?"


def test_memory_does_not_grow_with_the_samples():
    """In a process of its own, on a net whose activations of 512 samples would take 400 MB."""
    script = textwrap.dedent("""
        import resource, sys
        sys.path.insert(0, sys.argv[2])
        import numpy as np
        from quantize_nets import Net
        from modelkit.data.dataset import Batch
        from modelkit.quantize.calibrate import observe

        net = Net(13)
        net.input("x", ["n", 3, 32, 32])
        a = net.add("Relu", net.conv("x", 3, 16), out="a")
        b = net.add("Relu", net.conv(a, 16, 16, strides=[2, 2]), out="b")
        c = net.add("Relu", net.conv(b, 16, 32, strides=[2, 2]), out="y")
        net.output("y", ["n", 32, 8, 8])
        model, count = net.build(), int(sys.argv[1])
        random = np.random.default_rng(0)

        def data():
            for _ in range(count // 8):
                yield Batch({"x": random.standard_normal((8, 3, 32, 32)).astype(np.float32)}, None, 8)

        observe(model, ["x", "a", "b", "y"], data, count=count, threads=1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """)
    peaks = []
    for count in (16, 512):
        done = subprocess.run(
            [sys.executable, "-c", script, str(count), str(__import__("pathlib").Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] * 1.1
