"""HardSwish and HardSigmoid in integers: found in every spelling, whole chains, close outputs."""

import numpy as np
import pytest
from quantize_nets import Net, closeness, kernels, ops, optimised, run, static

from modelkit.graph.opset import ensure_opset
from modelkit.quantize.hard import join_hard, useful_range

RNG = np.random.default_rng(4)
X = RNG.standard_normal((4, 8, 12, 12)).astype(np.float32) * 3


def whole(net, x):
    return net.add("HardSwish", x)


def by_gate(net, x):
    return net.add("Mul", x, net.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def in_pieces(net, x):
    three, zero, six = (net.const(np.float32(number)) for number in (3, 0, 6))
    clipped = net.add("Clip", net.add("Add", x, three), zero, six)
    return net.add("Div", net.add("Mul", x, clipped), six)


def gate_in_pieces(net, x):
    three, zero, six = (net.const(np.float32(number)) for number in (3, 0, 6))
    return net.add("Mul", net.add("Div", net.add("Clip", net.add("Add", x, three), zero, six), six), x)


def net_of(build, opset=17):
    net = Net(opset, seed=3)
    net.input("x", ["n", 8, 12, 12])
    y = build(net, net.conv("x", 8, 16))
    gate = net.add("Relu", net.conv(net.add("GlobalAveragePool", y), 16, 8, kernel=1))
    gate = net.add("HardSigmoid", net.conv(gate, 8, 16, kernel=1), alpha=0.2, beta=0.5)
    net.add("Identity", net.conv(net.add("Mul", y, gate), 16, 8, kernel=1), out="y")
    net.output("y", ["n", 8, 12, 12])
    return net.build()


@pytest.mark.parametrize("build", [whole, by_gate, in_pieces, gate_in_pieces])
def test_the_whole_chain_is_integer_kernels(build, tmp_path):
    model = net_of(build)
    before = run(model, {"x": X})
    static(model, {"x": X})
    assert closeness(before, run(model, {"x": X})) > 28
    found = kernels(optimised(model, tmp_path))
    assert found["QLinearAdd"] == 2 and found["QLinearMul"] == 2 and found["QLinearConv"] == 4
    assert not {"HardSwish", "HardSigmoid", "Clip", "Mul", "Add", "Conv"} & set(found)
    assert found["QuantizeLinear"] == 1 and found["DequantizeLinear"] == 1


def test_signed_activations_clip_at_their_lowest_integer():
    model = net_of(whole)
    before = run(model, {"x": X})
    static(model, {"x": X}, signed=True)
    assert closeness(before, run(model, {"x": X})) > 28


@pytest.mark.parametrize("build", [by_gate, in_pieces, gate_in_pieces])
def test_pieces_become_one_operator_with_the_same_outputs(build):
    model = net_of(build)
    before = run(model, {"x": X})
    assert {decision.action for decision in join_hard(model)} == {"rewritten"}
    assert ops(model)["HardSwish"] == 1 and ops(model)["Clip"] == 0
    assert closeness(before, run(model, {"x": X})) > 110
    assert join_hard(model) == []


def test_before_opset_14_there_is_no_hardswish():
    model = net_of(by_gate, opset=13)
    assert join_hard(model) == [] and ops(model)["HardSigmoid"] == 2
    ensure_opset(model, 14)
    join_hard(model)
    assert ops(model)["HardSwish"] == 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 5.0), (0.0, 6.5), (-1.0, 6.0)])
def test_other_bounds_are_no_hard_sigmoid(low, high):
    def build(net, x):
        three, six = net.const(np.float32(3)), net.const(np.float32(6))
        bounds = net.const(np.float32(low)), net.const(np.float32(high))
        return net.add("Div", net.add("Clip", net.add("Add", x, three), *bounds), six)

    assert join_hard(net_of(build)) == []


@pytest.mark.parametrize(("alpha", "beta"), [(-0.2, 0.5), (0.2, -0.5), (0.0, 0.5)])
def test_slopes_that_a_sum_cannot_clip_stay_float(alpha, beta, tmp_path):
    model = net_of(lambda net, x: net.add("HardSigmoid", x, alpha=alpha, beta=beta))
    before = run(model, {"x": X})
    static(model, {"x": X})
    assert kernels(optimised(model, tmp_path))["HardSigmoid"] == 1
    assert closeness(before, run(model, {"x": X})) > 25


def test_integers_are_not_spent_on_what_the_clip_cuts():
    model = net_of(lambda net, x: net.add("HardSigmoid", x, alpha=0.25, beta=0.5))
    first = next(node for node in model.graph if node.op_type == "HardSigmoid")
    assert useful_range(first.inputs[0]) == (-2.0, 2.0)
    model = net_of(whole)
    swish = next(node for node in model.graph if node.op_type == "HardSwish")
    assert useful_range(swish.inputs[0]) == pytest.approx((-3.0, np.inf))
    assert useful_range(swish.outputs[0]) == (-np.inf, np.inf)
