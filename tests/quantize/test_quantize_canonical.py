"""Rewrites for integer kernels: outputs, names and what must not be touched."""

import numpy as np
import pytest
from quantize_nets import Net, closeness, ops, run

from modelkit.graph.opset import ensure_opset
from modelkit.quantize.canonical import canonicalise

X = np.random.default_rng(2).standard_normal((3, 8, 6, 6)).astype(np.float32)


def net_of(build, opset=13, shape=None):
    net = Net(opset, seed=9)
    net.input("x", ["n", 8, 6, 6])
    net.add("Identity", build(net, "x"), out="y")
    net.output("y", shape or ["n", None, None, None])
    return net.build()


def unchanged_outputs(model, least=110.0):
    before = run(model, {"x": X})
    decisions = canonicalise(model)
    assert closeness(before, run(model, {"x": X})) > least
    assert [value.name for value in model.graph.outputs] == ["y"]
    again = canonicalise(model)
    assert again == []
    return decisions


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_mean_over_space_becomes_a_pool(opset, axes, keepdims):
    def build(net, x):
        if opset >= 18:
            return net.add("ReduceMean", x, net.ints(*axes), keepdims=keepdims)
        return net.add("ReduceMean", x, axes=axes, keepdims=keepdims)

    model = net_of(build, opset, ["n", 8, 1, 1] if keepdims else ["n", 8])
    assert [d.action for d in unchanged_outputs(model)] == ["rewritten"]
    assert ops(model)["GlobalAveragePool"] == 1 and ops(model)["ReduceMean"] == 0


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2, 3), (0, 2, 3)])
def test_other_means_stay(axes):
    model = net_of(lambda net, x: net.add("ReduceMean", x, axes=axes))
    assert unchanged_outputs(model) == []


@pytest.mark.parametrize(
    ("pads", "own", "done"),
    [
        ((0, 0, 1, 2, 0, 0, 3, 0), [0, 0, 0, 0], True),
        ((0, 0, 1, 1, 0, 0, 1, 1), [1, 0, 0, 1], True),
        ((0, 1, 1, 1, 0, 0, 1, 1), [0, 0, 0, 0], False),
        ((0, 0, -1, 1, 0, 0, 1, 1), [0, 0, 0, 0], False),
    ],
)
def test_zero_padding_goes_into_the_conv(pads, own, done):
    channels = 8 + pads[1]
    model = net_of(lambda net, x: net.conv(net.add("Pad", x, net.ints(*pads)), channels, 4, pads=own))
    assert bool(unchanged_outputs(model)) == done
    assert ops(model)["Pad"] == int(not done)


@pytest.mark.parametrize("why", ["value", "mode", "two readers", "pool", "axes"])
def test_other_padding_stays(why):
    def build(net, x):
        inputs = [x, net.ints(0, 0, 1, 1, 0, 0, 1, 1)]
        if why == "value":
            inputs.append(net.const(np.float32(0.5)))
        padded = net.add("Pad", *inputs, mode="reflect" if why == "mode" else "constant")
        if why == "pool":
            return net.add("AveragePool", padded, kernel_shape=[3, 3])
        y = net.conv(padded, 8, 8, pads=[1] * 4)
        return net.add("Mul", y, padded) if why == "two readers" else y

    if why == "axes":
        net = Net(18, seed=9)
        net.input("x", ["n", 8, 6, 6])
        padded = net.add("Pad", "x", net.ints(1, 1), "", net.ints(3))
        net.add("Identity", net.conv(padded, 8, 8), out="y")
        net.output("y", ["n", 8, None, None])
        model = net.build()
    else:
        model = net_of(build)
    unchanged_outputs(model)
    assert ops(model)["Pad"] == 1


def test_sum_of_two_is_add():
    model = net_of(lambda net, x: net.add("Sum", x, net.conv(x, 8, 8)))
    assert len(unchanged_outputs(model)) == 1
    assert ops(model)["Add"] == 1 and ops(model)["Sum"] == 0
    model = net_of(lambda net, x: net.add("Sum", x, x, net.conv(x, 8, 8)))
    assert unchanged_outputs(model) == []


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("rank", "bias", "done"), [(2, (5,), 1), (2, (1, 5), 1), (2, (), 0), (2, (1,), 0), (3, (5,), 0)]
)
def test_matmul_and_add_are_gemm(rank, bias, done, first):
    net = Net(13)
    net.input("x", ["n", 6] if rank == 2 else ["n", 4, 6])
    product = net.add("MatMul", "x", net.weight(6, 5, name="w"), name="fc")
    added = net.weight(*bias, name="b")
    net.add("Add", *((added, product) if first else (product, added)), out="y")
    net.output("y", ["n", 5] if rank == 2 else ["n", 4, 5])
    model = net.build()
    x = np.random.default_rng(0).standard_normal((3, 6) if rank == 2 else (3, 4, 6)).astype(np.float32)
    before = run(model, {"x": x})
    assert len(canonicalise(model)) == done
    assert closeness(before, run(model, {"x": x})) > 120
    if done:
        assert [(node.op_type, node.name) for node in model.graph] == [("Gemm", "fc")]
        assert model.graph.outputs[0].name == "y" and sorted(model.graph.initializers) == ["b", "w"]


def test_a_product_that_others_read_stays_a_product():
    net = Net(13)
    net.input("x", ["n", 6])
    product = net.add("MatMul", "x", net.weight(6, 6))
    net.add("Mul", net.add("Add", product, net.weight(6)), product, out="y")
    net.output("y", ["n", 6])
    model = net.build()
    assert canonicalise(model) == [] and ops(model)["MatMul"] == 1


def norm(net, x, channels=8):
    statistics = [net.weight(channels), net.weight(channels), net.weight(channels)]
    variance = net.const(net.rng.uniform(0.1, 2, channels).astype(np.float32))
    return net.add("BatchNormalization", x, *statistics, variance)


@pytest.mark.parametrize("between", [None, "Relu"])
def test_norm_in_front_of_a_conv_is_a_conv(between):
    def build(net, x):
        y = norm(net, net.add("Tanh", x))
        return net.conv(net.add(between, y) if between else y, 8, 4)

    model = net_of(build)
    canonicalise_first = ops(model)["BatchNormalization"]
    unchanged_outputs(model)
    if canonicalise_first:
        assert ops(model)["BatchNormalization"] == 0 and ops(model)["Conv"] == 2


def test_norm_that_no_conv_reads_stays():
    model = net_of(lambda net, x: net.add("Tanh", norm(net, net.add("Tanh", x))))
    assert unchanged_outputs(model) == []
    assert ops(model)["BatchNormalization"] == 1


@pytest.mark.parametrize("op", ["Mul", "Add"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1, 1, 1), (), (1,)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_constant_behind_a_conv_goes_into_it(op, shape, bias):
    model = net_of(lambda net, x: net.add(op, net.conv(x, 8, 4, bias=bias), net.weight(*shape)))
    if any(node.op_type == op for node in model.graph):
        assert len(unchanged_outputs(model)) == 1
    assert ops(model) == {"Conv": 1}


@pytest.mark.parametrize("shape", [(4, 6, 6), (6,), (1, 6), (2, 4, 6, 6)])
def test_other_constants_stay(shape):
    model = net_of(lambda net, x: net.add("Slice", x, net.ints(0), net.ints(2), net.ints(0)))
    net = Net(13, seed=9)
    net.input("x", [2, 8, 6, 6])
    net.add("Mul", net.conv("x", 8, 4), net.weight(*shape), out="y")
    net.output("y", [2, 4, 6, 6])
    model = net.build()
    assert canonicalise(model) == [] and ops(model) == {"Conv": 1, "Mul": 1}


def test_scale_layers_of_old_converters_vanish():
    """Norm, Mul, Add, Relu, Conv as caffe's converters wrote a pre-activation."""

    def build(net, x):
        y = net.add("Add", net.add("Mul", norm(net, net.add("Tanh", x)), net.weight(8, 1, 1)), net.weight(8, 1, 1))
        return net.conv(net.add("Relu", y), 8, 4)

    model = net_of(build)
    unchanged_outputs(model)
    assert ops(model) == {"Tanh": 1, "Conv": 2, "Relu": 1}


def test_a_shared_conv_weight_is_not_scaled_for_others():
    net = Net(13, seed=9)
    net.input("x", ["n", 8, 6, 6])
    net.weight(8, 8, 1, 1, name="w")
    scaled = net.add("Mul", net.add("Conv", "x", "w"), net.weight(8, 1, 1))
    net.add("Add", scaled, net.add("Conv", "x", "w"), out="y")
    net.output("y", ["n", 8, 6, 6])
    model = net.build()
    ensure_opset(model, 13)
    unchanged_outputs(model)
    assert "w" in model.graph.initializers
