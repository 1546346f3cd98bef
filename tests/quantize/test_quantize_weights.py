"""Weight-only quantization of every kind of layer: it loads, it is close, and it costs nothing at run time."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize_nets import FLOAT, INT64, Net, closeness, kernels, ops, optimised, run

from modelkit.errors import UsageError
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.weights import quantize_weights

RNG = np.random.default_rng(7)


def image(net, channels=8, size=10):
    return net.input("x", ["n", channels, size, size])


def conv(net, **attributes):
    x = image(net)
    y = net.add(
        "Conv", x, net.weight(16, 8 // attributes.get("group", 1), 3, 3), net.weight(16), out="y", **attributes
    )
    return {"x": RNG.standard_normal((2, 8, 10, 10)).astype(np.float32)}, y, ["n", 16, None, None]


def depthwise(net):
    y = net.add("Conv", image(net), net.weight(64, 1, 5, 5), group=8, out="y")
    return {"x": RNG.standard_normal((2, 8, 10, 10)).astype(np.float32)}, y, ["n", 64, None, None]


def conv1d(net):
    net.input("x", ["n", 16, "t"])
    y = net.add("Conv", "x", net.weight(32, 16, 5), out="y")
    return {"x": RNG.standard_normal((2, 16, 20)).astype(np.float32)}, y, ["n", 32, None]


def transposed(net, group=1):
    y = net.add("ConvTranspose", image(net), net.weight(8, 24 // group, 3, 3), net.weight(24), out="y", group=group)
    return {"x": RNG.standard_normal((2, 8, 10, 10)).astype(np.float32)}, y, ["n", 24, None, None]


def gemm(net, trans=0):
    net.input("x", ["n", 50])
    y = net.add("Gemm", "x", net.weight(*((40, 50) if trans else (50, 40))), net.weight(40), out="y", transB=trans)
    return {"x": RNG.standard_normal((3, 50)).astype(np.float32)}, y, ["n", 40]


def gemm_left(net):
    net.input("x", [40, 50])
    y = net.add("Gemm", net.weight(30, 40), "x", out="y")
    return {"x": RNG.standard_normal((40, 50)).astype(np.float32)}, y, [30, 50]


def matmul(net, rank=2):
    net.input("x", ["n", "t", 50][3 - rank :] if rank < 3 else ["n", "t", 50])
    y = net.add("Add", net.add("MatMul", "x", net.weight(50, 40)), net.weight(40), out="y")
    shape = (2, 3, 50)[3 - rank :]
    return {"x": RNG.standard_normal(shape).astype(np.float32)}, y, [None] * (rank - 1) + [40]


def batched_matmul(net):
    net.input("x", ["n", 4, 5, 32])
    y = net.add("MatMul", "x", net.weight(4, 32, 24), out="y")
    return {"x": RNG.standard_normal((2, 4, 5, 32)).astype(np.float32)}, y, ["n", 4, 5, 24]


def left_matmul(net):
    net.input("x", ["n", 40, 6])
    y = net.add("MatMul", net.weight(30, 40), "x", out="y")
    return {"x": RNG.standard_normal((2, 40, 6)).astype(np.float32)}, y, ["n", 30, 6]


def recurrent(net, op="LSTM", directions=1):
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 24
    net.input("x", ["t", "n", 20])
    inputs = ["x", net.weight(directions, gates * hidden, 20), net.weight(directions, gates * hidden, hidden)]
    inputs.append(net.weight(directions, 2 * gates * hidden, scale=0.1))
    y = net.add(op, *inputs, out="y", hidden_size=hidden, direction="bidirectional" if directions == 2 else "forward")
    return {"x": RNG.standard_normal((7, 2, 20)).astype(np.float32)}, y, ["t", directions, "n", hidden]


def embedding(net):
    net.input("ids", ["n", "t"], INT64)
    y = net.add("Gather", net.weight(100, 32, name="table"), "ids", out="y")
    return {"ids": RNG.integers(0, 100, (2, 9))}, y, ["n", "t", 32]


def tied_embedding(net):
    net.input("ids", ["n", "t"], INT64)
    table = net.weight(100, 32, name="table")
    hidden = net.add("Tanh", net.add("Gather", table, "ids"))
    flat = net.add("Reshape", hidden, net.ints(-1, 32))
    y = net.add("Gemm", flat, table, out="y", transB=1)
    return {"ids": RNG.integers(0, 100, (2, 9))}, y, [None, 100]


def shared_conv(net):
    x, weight = image(net), net.weight(8, 8, 3, 3, name="w")
    for _ in range(2):
        x = net.add("Relu", net.add("Conv", x, weight, pads=[1] * 4))
    y = net.add("Add", x, x, out="y")
    return {"x": RNG.standard_normal((2, 8, 10, 10)).astype(np.float32)}, y, ["n", 8, 10, 10]


def position_table(net):
    net.input("x", ["n", 64, 32])
    y = net.add(
        "Add", net.add("MatMul", net.add("Add", "x", net.weight(64, 32, name="pos")), net.weight(32, 32)), "x"
    )
    return {"x": RNG.standard_normal((2, 64, 32)).astype(np.float32)}, y, ["n", 64, 32]


CASES = {
    "conv": conv,
    "grouped conv": lambda net: conv(net, group=4, pads=[1] * 4, strides=[2, 2]),
    "depthwise conv": depthwise,
    "conv 1-d": conv1d,
    "transposed conv": transposed,
    "grouped transposed conv": lambda net: transposed(net, 4),
    "gemm": gemm,
    "gemm, turned": lambda net: gemm(net, 1),
    "gemm, constant left": gemm_left,
    "matmul": matmul,
    "matmul, 3-d": lambda net: matmul(net, 3),
    "matmul, batched weight": batched_matmul,
    "matmul, constant left": left_matmul,
    "lstm": recurrent,
    "lstm, bidirectional": lambda net: recurrent(net, "LSTM", 2),
    "gru, bidirectional": lambda net: recurrent(net, "GRU", 2),
    "rnn": lambda net: recurrent(net, "RNN"),
    "embedding": embedding,
    "tied embedding": tied_embedding,
    "shared conv": shared_conv,
    "position table": position_table,
}


def make(case, opset):
    net = Net(opset, seed=3)
    feeds, y, shape = CASES[case](net)
    net.output(y, shape)
    return net.build(), feeds


def quantize(model, bits=8, fuse=False, include=(), exclude=(), **options):
    return quantize_weights(
        model,
        bits=bits,
        options=WeightOptions(**options),
        include=list(include),
        exclude=list(exclude),
        fuse_matmul=fuse,
    )


def products(counts):
    """Count Gemm and MatMul as one: a Gemm without a bias is written as MatMul."""
    merged = counts.copy()
    merged["MatMul"] += merged.pop("Gemm", 0)
    return merged


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("bits", "options", "least"),
    [
        (8, {}, 36),
        (8, {"granularity": "tensor"}, 33),
        (8, {"center": "range", "scale": "mse"}, 38),
        (8, {"granularity": "block", "block_size": 16, "center": "mean"}, 38),
        (6, {}, 25),
        (4, {"granularity": "block", "block_size": 16, "scale": "mse"}, 15),
        (3, {}, 6),
    ],
)
def test_outputs_are_close_and_everything_is_folded_at_load(case, bits, options, least, tmp_path):
    model, feeds = make(case, 21 if bits <= 4 else 13)
    before, plain = run(model, feeds), kernels(optimised(model, tmp_path))
    decisions = quantize(model, bits, **options)
    done = [decision for decision in decisions if decision.action == "quantized"]
    assert done and all(decision.numbers["bits"] <= 8 for decision in done)
    assert closeness(before, run(model, feeds)) > least
    # The graph that runs is the one that ran before: nothing is unpacked at run time.
    assert products(kernels(optimised(model, tmp_path))) == products(plain)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("bits", "options", "least"), [(8, {}, 36), (4, {"granularity": "block"}, 14)])
def test_outputs_are_close_when_matmul_reads_integers(case, bits, options, least):
    model, feeds = make(case, 21)
    before = run(model, feeds)
    quantize(model, bits, fuse=True, **options)
    assert closeness(before, run(model, feeds)) > least


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("center", ["zero", "range"])
@pytest.mark.parametrize("granularity", ["channel", "tensor", "block"])
@pytest.mark.parametrize("case", ["matmul", "matmul, 3-d", "gemm", "gemm, turned"])
@pytest.mark.parametrize("width", [64, 50, 96])
def test_matmul_reads_the_small_weights(case, width, granularity, center, bits, tmp_path):
    """MatMulNBits replaces DequantizeLinear and MatMul, also for widths that are no multiple of its blocks."""
    net = Net(21)
    feeds = {"x": RNG.standard_normal((2, 3, width) if "3-d" in case else (3, width)).astype(np.float32)}
    net.input("x", ["n", "t", width] if "3-d" in case else ["n", width])
    if case.startswith("gemm"):
        trans = int("turned" in case)
        shape = (40, width) if trans else (width, 40)
        net.add("Gemm", "x", net.weight(*shape), net.weight(40), transB=trans, out="y")
    else:
        net.add("Add", net.add("MatMul", "x", net.weight(width, 40)), net.weight(40), out="y")
    net.output("y", [None] * (feeds["x"].ndim - 1) + [40])
    model = net.build()
    before = run(model, feeds)
    decisions = quantize(model, bits, fuse=True, granularity=granularity, block_size=32, center=center)
    assert [d.reason for d in decisions if d.action == "quantized"] == [
        "matmul weight, read as integers by MatMul at run time"
    ]
    assert closeness(before, run(model, feeds)) > (34 if bits == 8 else 10)
    found = kernels(optimised(model, tmp_path))
    assert found["MatMulNBits"] == 1, found
    assert not {"DequantizeLinear", "MatMul", "Gemm", "Cast"} & set(found), found


def test_opset_11_with_8_bits(tmp_path):
    model, feeds = make("conv", 11)
    before = run(model, feeds)
    quantize(model, 8, center="range", granularity="block", block_size=16)
    assert model.opset_imports[""] == 11
    assert closeness(before, run(model, feeds)) > 36
    assert not {"Cast", "Sub", "Mul", "Reshape"} & set(kernels(optimised(model, tmp_path)))


def test_article_formula_floor_and_mean():
    model, feeds = make("gemm", 13)
    before = run(model, feeds)
    quantize(model, 8, center="mean", rounding="floor")
    assert closeness(before, run(model, feeds)) > 25


def test_a_shared_weight_is_stored_once():
    model, feeds = make("tied embedding", 13)
    before = run(model, feeds)
    decisions = quantize(model, 8)
    assert [d.target for d in decisions if d.action == "quantized"] == ["table"]
    assert ops(model)["Cast"] == ops(model)["Mul"] == 1
    assert closeness(before, run(model, feeds)) > 36


def branches(shared):
    """An If whose branches multiply by their own weights, and by one of the outer graph."""
    net = Net(13, seed=5)
    net.input("x", ["n", 16])
    net.input("c", [], TensorProto.BOOL)
    outer = net.weight(16, 16, name="outer")
    bodies = {}
    for name in ("then", "else"):
        inner = (net.rng.standard_normal((16, 16)) / 4).astype(np.float32)
        weight = outer if shared else f"w_{name}"
        nodes = [
            helper.make_node("MatMul", ["x", weight], [f"h_{name}"], name=f"a_{name}"),
            helper.make_node("MatMul", [f"h_{name}", f"v_{name}"], [f"y_{name}"], name=f"b_{name}"),
        ]
        constants = [numpy_helper.from_array(inner, f"v_{name}")]
        if not shared:
            constants.append(numpy_helper.from_array(inner.T.copy(), weight))
        output = helper.make_tensor_value_info(f"y_{name}", FLOAT, ["n", 16])
        bodies[f"{name}_branch"] = helper.make_graph(nodes, name, [], [output], constants)
    net.add("Add", net.add("If", "c", **bodies), net.add("MatMul", "x", "outer"), out="y")
    net.output("y", ["n", 16])
    return net.build()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("fuse", [False, True])
def test_weights_in_subgraphs(shared, fuse, tmp_path):
    model = branches(shared)
    x = RNG.standard_normal((3, 16)).astype(np.float32)
    feeds = [{"x": x, "c": np.array(c)} for c in (True, False)]
    before = [run(model, feed)[0] for feed in feeds]
    decisions = quantize(model, 8, fuse=fuse)
    names = {"v_then", "v_else", "outer"} | (set() if shared else {"w_then", "w_else"})
    assert {d.target for d in decisions if d.action == "quantized"} == names
    assert closeness(before, [run(model, feed)[0] for feed in feeds]) > 30
    found = kernels(optimised(model, tmp_path))
    assert not {"Cast", "Mul", "DequantizeLinear"} & set(found), found


def test_a_weight_that_the_graph_returns_stays():
    net = Net(13)
    net.input("x", ["n", 32])
    net.weight(32, 32, name="w")
    net.add("MatMul", "x", "w", out="y")
    net.output("y", ["n", 32])
    net.output("w", [32, 32])
    model = net.build()
    x = RNG.standard_normal((3, 32)).astype(np.float32)
    before = run(model, {"x": x})
    decisions = quantize(model, 8)
    assert [(d.target, d.action, d.reason) for d in decisions] == [("w", "kept", "the graph returns it")]
    assert closeness(before, run(model, {"x": x})) == float("inf")


def test_reasons():
    net = Net(13)
    net.input("x", ["n", 32])
    names = ["small", "wide", "infinite", "named", "double"]
    x = "x"
    for name in names:
        if name == "double":
            x = net.add("Cast", x, to=TensorProto.DOUBLE)
        shape = (32, 1) if name == "small" else (1, 32) if name == "wide" else (32, 32)
        numbers = net.rng.standard_normal(shape).astype(np.float64 if name == "double" else np.float32)
        if name == "infinite":
            numbers[0, 0] = np.inf
        x = net.add("MatMul", x, net.const(numbers, name))
    x = net.add("Add", x, net.const(np.ones(32), "bias"), out="y")
    net.output("y", ["n", 32], TensorProto.DOUBLE)
    kept = {d.target: d.reason for d in quantize(net.build(), 8, exclude=["nam*"]) if d.action == "kept"}
    assert kept["infinite"] == "holds infinite values or NaN"
    assert kept["named"] == "excluded by 'nam*'"
    assert kept["double"] == "stored as double, only float32 weights are quantized"
    assert kept["small"] == kept["wide"] == "32 numbers: scales and nodes would cost more than they save"
    assert kept["bias"] == "a bias: few numbers that every output depends on"


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing(option):
    model, _ = make("tied embedding", 13)
    with pytest.raises(UsageError) as caught:
        quantize(model, 8, **{option: ["tabel"]})
    assert caught.value.message == f"{option}: the pattern 'tabel' matches no weight or layer"
    assert "table" in caught.value.hint


def test_include_chooses_by_weight_or_layer():
    model, _ = make("position table", 13)
    done = [d.target for d in quantize(model, 8, include=["pos"]) if d.action == "quantized"]
    assert done == ["pos"]
    model, _ = make("position table", 13)
    layer = next(node.name for node in model.graph if node.op_type == "MatMul")
    done = [d.target for d in quantize(model, 8, include=[layer]) if d.action == "quantized"]
    assert len(done) == 1 and done != ["pos"]


def test_causal_mask_of_the_lowest_floats_stays_finite():
    """Exporters write masks of 0 and float32's lowest number; after quantization they must still mask, not be NaN."""
    net = Net(13)
    net.input("x", ["n", 64, 64])
    lowest = np.finfo(np.float32).min
    net.const(np.triu(np.full((64, 64), lowest, np.float32), 1), "mask")
    net.add("Softmax", net.add("Add", "x", "mask"), out="y", axis=-1)
    net.output("y", ["n", 64, 64])
    model = net.build()
    x = RNG.standard_normal((2, 64, 64)).astype(np.float32)
    before = run(model, {"x": x})
    decisions = quantize(model, 8)
    assert [d.target for d in decisions if d.action == "quantized"] == ["mask"]
    assert closeness(before, run(model, {"x": x})) > 60
