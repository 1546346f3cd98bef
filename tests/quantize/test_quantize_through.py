"""Operators that only move numbers, on integers: no conversions around them, the same outputs."""

import numpy as np
import pytest
from quantize_nets import Net, conversions, kernels, optimised, run, static

from modelkit.quantize.through import move_integers

X = np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)


def between(op, channels, *inputs, opset=17, returned=False, **attributes):
    """A net of Conv, MaxPool, the operator, Conv."""
    net = Net(opset)
    net.input("x", [2, 8, 8, 8])
    pooled = net.add("MaxPool", net.conv("x", 8, 8), kernel_shape=[2, 2], strides=[2, 2])
    moved = net.add(op, pooled, *[each(net) for each in inputs], out="moved", **attributes)
    net.conv(moved, channels, 16)
    net.output(net.nodes[-1].output[0], None)
    if returned:
        net.output("moved", None)
    return net.build()


CASES = {
    "zeros": lambda **more: between("Pad", 10, lambda net: net.ints(0, 2, 0, 0, 0, 0, 0, 0), **more),
    "zero, said": lambda **more: between(
        "Pad", 8, lambda net: net.ints(0, 0, 1, 1, 0, 0, 2, 1), lambda net: net.const(np.float32(0)), **more
    ),
    "reflect": lambda **more: between("Pad", 8, lambda net: net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect", **more),
    "edge": lambda **more: between("Pad", 8, lambda net: net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge", **more),
    "space to depth": lambda **more: between("SpaceToDepth", 32, blocksize=2, **more),
}


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("case", CASES)
def test_it_runs_on_integers(case, opset, tmp_path):
    model = CASES[case](opset=opset)
    plan = static(model, {"x": X})
    before = run(model, {"x": X})[0]
    there = sum(conversions(optimised(model, tmp_path)))
    done = move_integers(plan)
    assert len(done) == (0 if case == "zero, said" and not plan_has_pad(plan) else 1)
    np.testing.assert_array_equal(run(model, {"x": X})[0], before)
    found = optimised(model, tmp_path)
    assert sum(conversions(found)) == there - 2 * len(done)
    assert kernels(found)["QLinearConv"] == 2


def plan_has_pad(plan):
    """Zeros around an image become padding of the convolution; what is left in the plan is moved."""
    return any(node.op_type == "Pad" for node in plan.nodes)


def test_what_the_graph_returns_stays_float():
    model = CASES["space to depth"](returned=True)
    plan = static(model, {"x": X})
    before = run(model, {"x": X})
    move_integers(plan)
    for one, other in zip(run(model, {"x": X}), before, strict=True):
        np.testing.assert_array_equal(one, other)
