"""Smoothing: outliers of activations go into weights, outputs stay, and integers lose less."""

import numpy as np
import onnx_ir as ir
import pytest
from quantize_nets import Net, closeness, run

from modelkit.config.resolve import resolve
from modelkit.data.arrays import from_arrays
from modelkit.graph.edit import Namer, renew_initializer
from modelkit.progress import silent
from modelkit.quantize.auto import Quantizer
from modelkit.quantize.config import QuantizeConfig
from modelkit.quantize.smooth import can_smooth, smooth
from modelkit.runtime import TensorSpec

RNG = np.random.default_rng(8)
WIDTH = 32


def block(turned=False, relu=True, outliers=60.0) -> ir.Model:
    """A normalisation with a few large channels, two products that read it, and a linear layer behind one."""
    net = Net(17, seed=3)
    net.input("x", ["n", 5, WIDTH])
    large = np.ones(WIDTH, np.float32)
    large[[3, 11]] = outliers
    net.add("LayerNormalization", "x", net.const(large, "gamma"), net.const(large * 0.1, "beta"), out="normed")
    first = RNG.standard_normal((WIDTH, 24)).astype(np.float32) * 0.2 / large[:, None]
    second = RNG.standard_normal((WIDTH, 6)).astype(np.float32) * 0.2 / large[:, None]
    hidden = net.add(
        "Add", net.add("MatMul", "normed", net.const(first, "up")), net.const(np.ones(24, np.float32), "b")
    )
    if relu:
        hidden = net.add("Relu", hidden)
    net.add("MatMul", hidden, net.const(RNG.standard_normal((24, 4)).astype(np.float32), "down"), out="y")
    if turned:
        flat = net.add("Reshape", "normed", net.ints(-1, WIDTH))
        net.add("Gemm", flat, net.const(np.ascontiguousarray(second.T), "other"), transB=1, out="z")
        net.output("z", ["m", 6])
    else:
        net.add("MatMul", "normed", net.const(second, "other"), out="z")
        net.output("z", ["n", 5, 6])
    net.output("y", ["n", 5, 4])
    return net.build()


def rows(count=40):
    return {"x": RNG.standard_normal((count, 5, WIDTH)).astype(np.float32)}


def data():
    return from_arrays(rows(), [TensorSpec("x", np.dtype(np.float32), ("n", 5, WIDTH))])


@pytest.mark.parametrize("relu", [False, True])
def test_outputs_stay_and_dynamic_integers_lose_far_less(relu):
    model = block(relu=relu)
    config = resolve(QuantizeConfig, flags={"mode": ("dynamic", "--mode")}).value
    ways = Quantizer(model, config, data(), "avx2").candidates()
    assert [way.name for way in ways] == ["dynamic", "dynamic, smoothed"]
    smoothed = model.clone()
    decisions = smooth(smoothed, data(), 7)
    assert "normed" in {each.target for each in decisions}
    [normed] = [each for each in decisions if each.target == "normed"]
    assert normed.numbers["error_left"] < 0.2 and normed.numbers["largest_scale"] > 5
    assert set(smoothed.graph.initializers) == set(model.graph.initializers), "weights keep their names"
    test = rows()
    exact = run(model, test)
    assert closeness(exact, run(smoothed, test)) > 100
    made = []
    for way in ways:
        copy = model.clone()
        way.apply(copy, silent)
        made.append(closeness(exact, run(copy, test)))
    assert made[1] > made[0] + 8, made


def test_static_integers_lose_less_too():
    model, test = block(), rows()
    exact, found = run(model, test), []
    for smoothing in (False, True):
        flags = {"mode": ("static", "--mode"), "smooth": (smoothing, "smooth")}
        [way] = Quantizer(model, resolve(QuantizeConfig, flags=flags).value, data(), "avx2").candidates()
        copy = model.clone()
        way.apply(copy, silent)
        found.append(closeness(exact, run(copy, test)))
    assert found[1] > found[0] + 8, found


def test_an_activation_that_something_else_reads_is_left_alone():
    model = block(turned=True)
    before = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    assert all(each.target != "normed" for each in smooth(model, data(), 8))
    assert np.array_equal(model.graph.initializers["gamma"].const_value.numpy(), before["gamma"])


def test_even_activations_are_left_alone():
    model = block(outliers=1.0)
    for each in smooth(model, data(), 8):
        assert each.numbers["error_left"] < 0.98


def test_a_model_without_such_activations():
    net = Net()
    net.input("x", ["n", 4])
    net.add("MatMul", "x", net.weight(4, 4), out="y")
    net.output("y", ["n", 4])
    model = net.build()
    assert not can_smooth(model) and smooth(model, data(), 8) == []


def test_a_constant_that_two_nodes_read_changes_for_one():
    net = Net()
    net.input("x", ["n", 4])
    shared = net.weight(4, 4, name="w")
    net.add("MatMul", net.add("MatMul", "x", shared, name="one"), shared, out="y", name="two")
    net.output("y", ["n", 4])
    model = net.build()
    one, two = (next(node for node in model.graph if node.name == name) for name in ("one", "two"))
    old = two.inputs[1].const_value.numpy().copy()
    renew_initializer(one, 1, old * 2, Namer(model))
    assert np.array_equal(two.inputs[1].const_value.numpy(), old) and two.inputs[1].name == "w"
    assert np.array_equal(one.inputs[1].const_value.numpy(), old * 2) and one.inputs[1].name != "w"
