"""Zero channels in front of integer convolutions: the same outputs to the bit, and only where it pays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantize_nets import Net, kernels, ops, optimised, run, static

from modelkit.quantize.align import align_channels, extra_channels


def conv_net(channels, outputs, kernel, size=12, **attributes):
    net = Net(17, seed=channels)
    net.input("x", ["n", channels, size, size])
    hidden = net.conv("x", channels, outputs, kernel, **attributes)
    net.add("Relu", hidden, out="y")
    net.output("y", ["n", outputs, None, None])
    x = np.random.default_rng(2).standard_normal((2, channels, size, size)).astype(np.float32)
    return net.build(), {"x": x}


@given(
    st.integers(1, 9),
    st.sampled_from([16, 20, 32]),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 2),
    st.data(),
)
def test_outputs_stay_the_same_to_the_bit(channels, outputs, kernel, stride, pad, data):
    dilation = data.draw(st.integers(1, 1 if kernel > 4 else 2))
    model, feeds = conv_net(
        channels,
        outputs,
        kernel,
        strides=[stride] * 2,
        pads=[pad] * 4,
        dilations=[dilation] * 2,
        bias=data.draw(st.booleans()),
    )
    plan = static(model, feeds)
    before = run(model, feeds)
    decisions = align_channels(model, plan)
    assert len(decisions) == ops(model)["Pad"] == int(extra_channels_expected(channels, kernel, stride))
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])


def extra_channels_expected(channels, kernel, stride):
    extra = -channels % 4
    return extra > 0 and (kernel <= 5 or (stride <= 2 and channels + extra <= 1.34 * channels))


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "attributes", "extra"),
    [
        (3, 64, 7, {"strides": [2, 2]}, 1),
        (3, 64, 7, {"strides": [4, 4]}, 0),
        (3, 64, 11, {}, 0),
        (1, 32, 3, {}, 3),
        (30, 64, 3, {}, 2),
        (32, 64, 3, {}, 0),
        (3, 10, 3, {}, 0),
        (3, 8, 3, {}, 0),
        (6, 18, 3, {"group": 3}, 0),
    ],
)
def test_where_it_pays(channels, outputs, kernel, attributes, extra):
    model, feeds = conv_net(channels, outputs, kernel, **attributes)
    plan = static(model, feeds)
    conv = next(node for node in plan.nodes if node.op_type == "Conv")
    assert extra_channels(conv) == extra


def test_layers_that_read_one_tensor_share_its_padding(tmp_path):
    net = Net(17)
    net.input("x", ["n", 3, 8, 8])
    one, two = net.conv("x", 3, 16, pads=[1] * 4), net.conv("x", 3, 16, pads=[1] * 4)
    net.add("Add", one, two, out="y")
    net.output("y", ["n", 16, 8, 8])
    model = net.build()
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    plan = static(model, feeds)
    before = run(model, feeds)
    assert [decision.action for decision in align_channels(model, plan)] == ["padded", "padded"]
    assert ops(model)["Pad"] == 1
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])
    assert kernels(optimised(model, tmp_path))["QLinearConv"] == 2


def test_a_tensor_that_others_read_too_keeps_its_shape():
    net = Net(17)
    net.input("x", ["n", 3, 8, 8])
    first = net.add("Relu", net.conv("x", 3, 18, pads=[1] * 4))
    second = net.conv(first, 18, 18, pads=[1] * 4)
    net.add("Relu", net.conv(net.add("Add", first, second), 18, 16), out="y")
    net.output("y", ["n", 16, 6, 6])
    model = net.build()
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    plan = static(model, feeds)
    before = run(model, feeds)
    assert len(align_channels(model, plan)) == 1  # 18 outputs are no multiple of four: only the last layer gains
    np.testing.assert_array_equal(run(model, feeds)[0], before[0])
