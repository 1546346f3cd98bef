"""Bias correction: the shift is what onnxruntime measures, and correcting it restores the mean."""

import numpy as np
import onnx_ir as ir
import pytest
from quantize_nets import Net, run

from modelkit.graph.edit import Namer
from modelkit.quantize.affine import dequantize, quantize_array
from modelkit.quantize.bias import ChannelMeans, shift_of, subtract_from_bias
from modelkit.quantize.plan import make_plan


def conv_net(group: int, bias: bool) -> Net:
    net = Net()
    net.input("x", ["n", 4, 9, 9])
    net.output("y")
    net.conv("x", 4, 8, group=group, bias=bias, pads=[0] * 4)
    net.nodes[-1].output[0] = "y"
    return net


def gemm_net(turned: int, bias: bool) -> Net:
    net = Net()
    net.input("x", ["n", 10])
    net.output("y")
    weight = net.weight(7, 10) if turned else net.weight(10, 7)
    net.add("Gemm", "x", weight, *([net.weight(7)] if bias else []), out="y", transB=turned)
    return net


NETS = [conv_net(1, True), conv_net(2, False), conv_net(4, True), gemm_net(0, True), gemm_net(1, False)]


@pytest.mark.parametrize("net", NETS, ids=["conv", "grouped", "depthwise", "gemm", "turned"])
def test_correction_restores_the_mean_of_every_channel(net: Net) -> None:
    model = net.build()
    node = next(iter(model.graph))
    shape = (64, 4, 9, 9) if node.op_type == "Conv" else (64, 10)
    feeds = {"x": (np.random.default_rng(3).random(shape) + 0.5).astype(np.float32)}
    means = ChannelMeans(make_plan(model, include=[], exclude=[]))
    for start in (0, 16):  # in two parts, to see them add up
        means.add("x", feeds["x"][start : start + (16 if start == 0 else 48)])
    weight = node.inputs[1].const_value.numpy()
    restored = dequantize(quantize_array(weight, bits=3))
    others = (0, *range(2, len(shape)))
    before = run(model, feeds)[0].mean(axis=others)
    node.inputs[1].const_value = ir.tensor(restored, name=node.inputs[1].name)
    shifted = run(model, feeds)[0].mean(axis=others)
    shift = shift_of(node, restored - weight, means.get("x"))
    assert np.abs(shifted - before).max() > 0.02
    assert np.allclose(shifted - before, shift, atol=0.02)
    assert subtract_from_bias(node, shift, Namer(model))
    corrected = run(model, feeds)[0].mean(axis=others)
    assert np.abs(corrected - before).max() < 0.35 * np.abs(shifted - before).max()


def test_a_matmul_has_no_room_for_a_bias() -> None:
    net = Net()
    net.input("x", ["n", 2, 10])
    net.output("y")
    net.add("MatMul", "x", net.weight(10, 7), out="y")
    model = net.build()
    assert not subtract_from_bias(next(iter(model.graph)), np.ones(7), Namer(model))


def test_tensors_that_were_not_seen_have_no_mean() -> None:
    model = conv_net(1, True).build()
    means = ChannelMeans(make_plan(model, include=[], exclude=[]))
    means.add("other", np.ones((2, 4, 9, 9)))
    assert means.get("other") is None and means.get("x") is None
    assert shift_of(next(iter(model.graph)), np.zeros((8, 4, 3, 3)), np.zeros(5)) is None
