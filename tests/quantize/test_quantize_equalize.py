"""Equalisation: outputs stay, ranges of channels become even, and what would change outputs is left alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_nets import Net, closeness, run

from modelkit.quantize.equalize import equalize


def uneven(net: Net, *shape: int) -> str:
    """A weight whose output channels differ a thousandfold."""
    numbers = net.rng.standard_normal(shape) * np.logspace(-1.5, 1.5, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return net.const(numbers.astype(np.float32))


def chain(group: int, between: str, bias: bool) -> Net:
    net = Net()
    x = net.input("x", ["n", 4, 8, 8])
    net.output("y")
    extra = [net.weight(8, scale=0.1)] if bias else []
    y = net.add("Conv", x, uneven(net, 8, 4, 3, 3), *extra, pads=[1] * 4, name="first")
    if between == "MaxPool":
        y = net.add("MaxPool", net.add("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    elif between:
        y = net.add(between, y)
    net.conv(y, 8, 8, group=group, bias=bias)
    net.nodes[-1].output[0], net.nodes[-1].name = "y", "second"
    return net


@settings(max_examples=25, deadline=None)
@given(
    group=st.sampled_from([1, 2, 8]),
    between=st.sampled_from(["", "Relu", "LeakyRelu", "MaxPool"]),
    bias=st.booleans(),
)
def test_outputs_stay_and_ranges_become_even(group: int, between: str, bias: bool) -> None:
    model = chain(group, between, bias).build()
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 4, 8, 8)).astype(np.float32)}
    before = run(model, feeds)
    decisions = equalize(model)
    assert [d.target for d in decisions] == ["first"]
    assert decisions[0].numbers["largest_scale"] > 2
    assert closeness(before, run(model, feeds)) > 90
    first, second = [node.inputs[1].const_value.numpy() for node in model.graph if node.op_type == "Conv"]
    made = np.abs(first).reshape(8, -1).max(axis=1)
    read = np.abs(second).reshape(group, 8 // group, 8 // group, -1).max(axis=(1, 3)).reshape(-1)
    assert np.allclose(made, read, rtol=1e-2)


@pytest.mark.parametrize("turned", [0, 1])
def test_gemms_of_both_orientations(turned: int) -> None:
    net = Net()
    x = net.input("x", ["n", 6])
    net.output("y")
    wide = net.rng.standard_normal((6, 12)) * np.logspace(-1, 1, 12)
    first = net.const(np.ascontiguousarray(wide.T if turned else wide).astype(np.float32))
    h = net.add("Relu", net.add("Gemm", x, first, net.weight(12), transB=turned, name="first"))
    net.add("Gemm", h, net.weight(12, 5), net.weight(5), out="y", name="second")
    model = net.build()
    feeds = {"x": np.random.default_rng(2).standard_normal((7, 6)).astype(np.float32)}
    before = run(model, feeds)
    assert len(equalize(model)) == 1
    assert closeness(before, run(model, feeds)) > 90


def test_layers_that_others_read_are_left_alone() -> None:
    """A residual branch, a clipped activation and a shared weight each stand in the way."""
    net = Net()
    x = net.input("x", ["n", 4, 8, 8])
    net.output("y")
    shared = uneven(net, 4, 4, 3, 3)
    a = net.add("Conv", x, shared, pads=[1] * 4)
    b = net.add("Conv", net.add("Relu", a), shared, pads=[1] * 4)
    c = net.add("Conv", net.add("Add", a, b), uneven(net, 4, 4, 1, 1))
    low, high = net.const(np.float32(0)), net.const(np.float32(6))
    net.add("Conv", net.add("Clip", c, low, high), net.weight(4, 4, 1, 1), out="y")
    model = net.build()
    assert equalize(model) == []


def test_a_matrix_as_bias_is_left_alone() -> None:
    net = Net()
    x = net.input("x", [3, 6])
    net.output("y")
    h = net.add("Gemm", x, net.weight(6, 4), net.weight(3, 4))
    net.add("Gemm", h, net.weight(4, 2), out="y")
    assert equalize(net.build()) == []
