"""Dynamic int8 against float, for every shape of layer that onnxruntime has a kernel for."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize_nets import FLOAT, INT32, WEIGHT_BITS, Net, closeness, kernels, ops, optimised, run

from modelkit.errors import UsageError
from modelkit.graph.save import save
from modelkit.quantize.audit import audit
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.dynamic import quantize_dynamic

RNG = np.random.default_rng(11)


def quantize(model, bits=WEIGHT_BITS, include=(), exclude=(), **options):
    return quantize_dynamic(
        model, weight_bits=bits, options=WeightOptions(**options), include=list(include), exclude=list(exclude)
    )


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def audited(model, decisions, folder):
    save(model, folder / "artifact.onnx")
    return audit(folder / "artifact.onnx", decisions)


@pytest.mark.parametrize("shape", [(5, 48), (2, 5, 48), (2, 3, 5, 48)])
@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_matmul(shape, bits, granularity, tmp_path):
    net = Net(11)
    net.input("x", [None] * (len(shape) - 1) + [48])
    net.add("Add", net.add("MatMul", "x", net.weight(48, 40)), net.weight(40), out="y")
    net.output("y", [None] * (len(shape) - 1) + [40])
    model, x = net.build(), normal(*shape)
    before = run(model, {"x": x})
    decisions = quantize(model, bits, granularity=granularity)
    assert [decision.action for decision in decisions] == ["int8"]
    # Above what the processor's kernels take, sums saturate.
    assert closeness(before, run(model, {"x": x})) > (33 if bits <= WEIGHT_BITS else 20)
    counts = audited(model, decisions, tmp_path)
    assert (counts["integer"], counts["float"]) == (1, 0)


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias", ["vector", "scalar", "none"])
def test_gemm(trans, bias, tmp_path):
    net = Net(13)
    net.input("x", ["n", 48])
    inputs = ["x", net.weight(*((40, 48) if trans else (48, 40)), name="w")]
    if bias != "none":
        inputs.append(net.weight(*((40,) if bias == "vector" else ())))
    net.add("Gemm", *inputs, transB=trans, out="y", name="fc")
    net.output("y", ["n", 40])
    model, x = net.build(), normal(6, 48)
    before = run(model, {"x": x})
    decisions = quantize(model)
    assert closeness(before, run(model, {"x": x})) > 33
    assert decisions[0].numbers["bytes_before"] == 48 * 40 * 4
    counts = audited(model, decisions, tmp_path)
    assert (counts["integer"], counts["float"]) == (1, 0)
    assert "w" not in model.graph.initializers


def test_two_layers_share_one_quantized_activation(tmp_path):
    net = Net(13)
    net.input("x", ["n", 32])
    heads = [net.add("MatMul", "x", net.weight(32, 32)) for _ in range(3)]
    net.add("Sum", *heads, out="y")
    net.output("y", ["n", 32])
    model, x = net.build(), normal(4, 32)
    before = run(model, {"x": x})
    decisions = quantize(model)
    assert ops(model)["DynamicQuantizeLinear"] == 1
    assert closeness(before, run(model, {"x": x})) > 33
    assert audited(model, decisions, tmp_path)["integer"] == 3


def test_two_layers_share_one_weight():
    net = Net(13)
    net.input("x", ["n", 32])
    net.weight(32, 32, name="w")
    net.add("MatMul", net.add("Relu", net.add("MatMul", "x", "w")), "w", out="y")
    net.output("y", ["n", 32])
    model, x = net.build(), normal(4, 32)
    before = run(model, {"x": x})
    quantize(model)
    assert sorted(model.graph.initializers) == ["w.q", "w.scale", "w.zero"]
    assert closeness(before, run(model, {"x": x})) > 30


def lstm_net(directions=1, lengths=False, states=False, peepholes=False, bias=True, outputs=3, **attributes):
    net, hidden = Net(14, seed=4), 24
    net.input("x", ["t", "n", 20])
    inputs = ["x", net.weight(directions, 4 * hidden, 20, name="W", scale=0.2)]
    inputs.append(net.weight(directions, 4 * hidden, hidden, name="R", scale=0.2))
    inputs.append(net.weight(directions, 8 * hidden, scale=0.1) if bias else "")
    inputs.append(net.input("lengths", ["n"], INT32) if lengths else "")
    for name in ("h", "c"):
        inputs.append(net.input(name, [directions, "n", hidden]) if states else "")
    inputs.append(net.weight(directions, 3 * hidden, scale=0.2) if peepholes else "")
    while not inputs[-1]:
        inputs.pop()
    direction = "bidirectional" if directions == 2 else attributes.pop("direction", "forward")
    names = ["y", "yh", "yc"]
    names = [name if i < outputs else "" for i, name in enumerate(names)] if outputs > 0 else ["", "yh", ""]
    net.add("LSTM", *inputs, out=names, hidden_size=hidden, direction=direction, **attributes)
    shapes = {"y": ["t", directions, "n", hidden], "yh": [directions, "n", hidden], "yc": [directions, "n", hidden]}
    for name in names:
        if name:
            net.output(name, shapes[name])
    feeds = {"x": normal(9, 3, 20)}
    if lengths:
        feeds["lengths"] = np.array([9, 4, 1], dtype=np.int32)
    if states:
        feeds |= {"h": normal(directions, 3, hidden), "c": normal(directions, 3, hidden)}
    return net.build(), feeds


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"direction": "reverse"},
        {"directions": 2},
        {"bias": False},
        {"lengths": True},
        {"states": True},
        {"peepholes": True},
        {"directions": 2, "lengths": True, "states": True, "peepholes": True},
        {"clip": 1.5, "input_forget": 1},
        {"activations": ["HardSigmoid", "Softsign", "Affine"], "activation_alpha": [0.25, 0.9], "outputs": 3},
        {"outputs": 1},
        {"outputs": 0},
    ],
    ids=str,
)
def test_lstm(case, tmp_path):
    model, feeds = lstm_net(**case)
    before = run(model, feeds)
    names = [value.name for value in model.graph.outputs]
    decisions = quantize(model)
    assert [decision.action for decision in decisions] == ["int8"]
    assert closeness(before, run(model, feeds)) > 25
    assert [value.name for value in model.graph.outputs] == names
    counts = audited(model, decisions, tmp_path)
    assert (counts["integer"], counts["float"]) == (1, 0)
    assert counts["kernels"] == {"DynamicQuantizeLSTM": 1}


def test_lstm_layout_1_stays_float():
    net, hidden = Net(14), 8
    net.input("x", ["n", "t", 4])
    net.add("LSTM", "x", net.weight(1, 32, 4), net.weight(1, 32, 8), out="y", hidden_size=hidden, layout=1)
    net.output("y", None)
    decisions = quantize(net.build())
    assert [(d.action, d.reason) for d in decisions] == [
        ("kept float", "DynamicQuantizeLSTM has no batch-first layout")
    ]


def test_two_lstms_share_their_weights():
    net, hidden = Net(14, seed=1), 24
    net.input("x", ["t", "n", hidden])
    net.weight(1, 4 * hidden, hidden, name="W", scale=0.2)
    net.weight(1, 4 * hidden, hidden, name="R", scale=0.2)
    first, _ = net.add("LSTM", "x", "W", "R", out=["a", "ah"], name="first", hidden_size=hidden)
    flat = net.add("Squeeze", first, net.ints(1))
    net.add("LSTM", flat, "W", "R", out="y", hidden_size=hidden)
    net.output("y", ["t", 1, "n", hidden])
    model, x = net.build(), normal(5, 2, hidden)
    before = run(model, {"x": x})
    quantize(model)
    assert closeness(before, run(model, {"x": x})) > 25
    stored = [v.name for v in model.graph.initializers.values() if v.const_value.size == 4 * hidden * hidden]
    assert sorted(stored) == ["R.q", "W.q"]


def test_layers_in_subgraphs(tmp_path):
    net = Net(13, seed=5)
    net.input("x", ["n", 32])
    net.input("c", [], TensorProto.BOOL)
    net.weight(32, 32, name="outer")
    bodies = {}
    for name in ("then", "else"):
        nodes = [
            helper.make_node("MatMul", ["x", "outer"], [f"h_{name}"], name=f"a_{name}"),
            helper.make_node("MatMul", [f"h_{name}", f"v_{name}"], [f"y_{name}"], name=f"b_{name}"),
        ]
        inner = numpy_helper.from_array((net.rng.standard_normal((32, 32)) / 5).astype(np.float32), f"v_{name}")
        output = helper.make_tensor_value_info(f"y_{name}", FLOAT, ["n", 32])
        bodies[f"{name}_branch"] = helper.make_graph(nodes, name, [], [output], [inner])
    net.add("Add", net.add("If", "c", **bodies), net.add("MatMul", "x", "outer"), out="y")
    net.output("y", ["n", 32])
    model = net.build()
    feeds = [{"x": normal(3, 32), "c": np.array(c)} for c in (True, False)]
    before = [run(model, feed)[0] for feed in feeds]
    decisions = quantize(model)
    assert len(decisions) == 5 and {d.action for d in decisions} == {"int8"}
    assert closeness(before, [run(model, feed)[0] for feed in feeds]) > 30
    assert kernels(optimised(model, tmp_path))["MatMul"] == 0


def test_reasons():
    net = Net(13)
    net.input("x", ["n", 8, 8])
    net.input("i", ["n", 3, 8, 8])
    net.add("MatMul", "x", "x", out="a")
    net.add("MatMul", net.weight(8, 8, name="left"), "x", out="b")
    net.add("MatMul", "x", net.weight(1, 8, 8, name="batched"), out="c")
    net.add("MatMul", "x", net.weight(8, 8, name="named"), out="d")
    net.add("Conv", "i", net.weight(4, 3, 3, 3, name="kernel"), out="e")
    net.add("Gemm", net.add("Flatten", "x", axis=2), net.weight(8, 8, name="scaled"), out="f", alpha=2.0)
    double = net.add("Cast", "x", to=TensorProto.DOUBLE)
    net.add("MatMul", double, net.const(np.eye(8), "double"), out="g")
    net.add("GRU", "x", net.weight(1, 12, 8, name="gru"), net.weight(1, 12, 4), out="h", hidden_size=4)
    for name in "abcdefh":
        net.output(name, None)
    net.output("g", None, TensorProto.DOUBLE)
    model = net.build()
    labels = {node.inputs[1].name: node.name for node in model.graph if len(node.inputs) > 1}
    left = next(node.name for node in model.graph if node.inputs[0].name == "left")
    reasons = {d.target: d.reason for d in quantize(model, exclude=["named"])}
    assert len(reasons) == 8
    assert reasons[labels["batched"]] == "its weight is not a matrix"
    assert reasons[labels["named"]] == "excluded by 'named'"
    assert reasons[labels["kernel"]] == "a dynamic convolution is slower than a float one in onnxruntime"
    assert reasons[labels["scaled"]] == "a Gemm that scales or transposes, or shares its weight with other layers"
    assert reasons[labels["double"]] == "its weight is not float32"
    assert reasons[labels["gru"]] == "onnxruntime has no dynamic integer kernel for GRU"
    assert reasons[left] == "its left operand is the constant"
    assert "multiplies two activations" in reasons.values()


def test_a_pattern_that_matches_nothing():
    model, _ = lstm_net()
    with pytest.raises(UsageError, match="exclude: the pattern 'gru\\*' matches no weight or layer"):
        quantize(model, exclude=["gru*"])
