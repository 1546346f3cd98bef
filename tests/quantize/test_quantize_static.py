"""Static int8: close to float, in integer kernels from end to end, and nothing that must stay is touched."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize_nets import (
    FLOAT,
    INT64,
    WEIGHT_BITS,
    Net,
    batches,
    closeness,
    conversions,
    kernels,
    ops,
    optimised,
    run,
    static,
)

from modelkit.graph.save import save
from modelkit.quantize.audit import audit
from modelkit.quantize.calibrate import observe
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.plan import make_plan
from modelkit.quantize.static import ActivationType, apply_static

RNG = np.random.default_rng(17)


def images(count=4, channels=3, size=16):
    return RNG.standard_normal((count, channels, size, size)).astype(np.float32)


def linear(net, x, width_in, width, out=None):
    return net.add("Gemm", x, net.weight(width, width_in), net.weight(width, scale=0.1), transB=1, out=out)


def residual_net(net):
    """Convolutions with residual sums, a depthwise one, relu6, pools, a concatenation and a classifier."""
    x = net.add("Relu", net.conv("x", 3, 16))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = net.add("Relu", net.conv(x, 16, 16))
    x = net.add("Relu", net.add("Add", net.conv(y, 16, 16), x))
    y = net.add("Clip", net.conv(x, 16, 16, group=16), net.const(np.float32(0)), net.const(np.float32(6)))
    y = net.conv(y, 16, 16, kernel=1, bias=False)
    x = net.add("Concat", x, net.add("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    x = net.add("LeakyRelu", net.conv(x, 32, 32, strides=[2, 2]), alpha=0.1)
    gate = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", x), 32, 32, kernel=1))
    x = net.add("Mul", x, gate)
    x = net.add("Flatten", net.add("ReduceMean", net.conv(x, 32, 32, kernel=1), axes=[2, 3], keepdims=1))
    return linear(net, x, 32, 10, out="y")


def make(build, opset=13, shape=("n", 3, 16, 16), out=("n", 10)):
    net = Net(opset, seed=21)
    net.input("x", shape)
    build(net)
    net.output("y", out)
    return net.build()


@pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_a_residual_net_runs_in_integers_from_end_to_end(method, granularity, tmp_path):
    model, x = make(residual_net), images(8)
    before = run(model, {"x": x})
    plan = static(model, {"x": x}, method=method, granularity=granularity)
    assert closeness(before, run(model, {"x": x})) > 25
    proto = optimised(model, tmp_path)
    assert conversions(proto) == (1, 0)
    counts = audit(tmp_path / "model.onnx", plan.decisions)
    assert counts["float"] == 0 and counts["unfused"] == []
    found = kernels(proto)
    assert found["QLinearConv"] == 8 and found["QGemm"] == 1 and found["QLinearAdd"] == 1
    assert not {"Relu", "Clip", "Conv", "Gemm", "Add", "Mul", "Concat"} & set(found)


@pytest.mark.parametrize(("signed", "bits"), [(True, 8), (False, 7), (True, 7)])
def test_other_integer_types(signed, bits):
    model, x = make(residual_net), images(8)
    before = run(model, {"x": x})
    static(model, {"x": x}, signed=signed, bits=bits)
    least = 22 if bits < 8 else 25
    # Without VNNI sums of 8-bit products saturate: the command takes 7 bits there.
    assert closeness(before, run(model, {"x": x})) > (15 if bits > WEIGHT_BITS else least)
    kinds = {v.const_value.dtype for name, v in model.graph.initializers.items() if name.endswith(".zero")}
    assert (ir.DataType.UINT8 in kinds) != signed
    most = max(
        np.abs(v.const_value.numpy().astype(int)).max()
        for v in model.graph.initializers.values()
        if v.const_value.dtype == ir.DataType.INT8 and v.const_value.size > 16
    )
    assert most == 2 ** (bits - 1) - 1


def test_layers_only():
    """Without arithmetic only layers join, and what moves numbers between them."""
    model, x = make(residual_net), images()
    plan = static(model, {"x": x}, arithmetic=False)
    assert {node.op_type for node in plan.nodes} == {"Conv", "Gemm", "MaxPool"}


@pytest.mark.parametrize("bound", [0.5, 1.0, 3.0, 6.0, 0.1])
@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("opset", [10, 13])
def test_clip_disappears(bound, low, opset, tmp_path):
    def build(net):
        x = net.conv("x", 3, 8)
        if opset < 11:
            x = net.add("Clip", x, min=low, max=bound)
        else:
            x = net.add("Clip", x, net.const(np.float32(low)), net.const(np.float32(bound)))
        net.conv(x, 8, 8)
        net.add("GlobalAveragePool", f"t{net.count}", out="y")

    model, x = make(build, opset, out=("n", 8, 1, 1)), images() * 5
    before = run(model, {"x": x})
    static(model, {"x": x})
    assert closeness(before, run(model, {"x": x})) > 25
    found = kernels(optimised(model, tmp_path))
    assert found["QLinearConv"] == 2 and found["Clip"] == 0


def chain(net, *steps):
    x = net.conv("x", 3, 8)
    for step in steps:
        x = step(net, x)
    return net.add("Flatten", net.add("Conv", x, net.weight(4, 8, 1, 1)), out="y")


MOVES = {
    "max pool": lambda net, x: net.add("MaxPool", x, kernel_shape=[2, 2]),
    "transpose": lambda net, x: net.add("Transpose", x, perm=[0, 1, 3, 2]),
    "slice": lambda net, x: net.add("Slice", x, net.ints(1), net.ints(9), net.ints(2)),
    "channel shuffle": lambda net, x: net.add(
        "Reshape",
        net.add("Transpose", net.add("Reshape", x, net.ints(0, 2, 4, 16, 16)), perm=[0, 2, 1, 3, 4]),
        net.ints(0, 8, 16, 16),
    ),
    "squeeze": lambda net, x: net.add("Squeeze", net.add("Unsqueeze", x, net.ints(1)), net.ints(1)),
    "gather": lambda net, x: net.add("Gather", x, net.ints(7, 6, 5, 4, 3, 2, 1, 0), axis=1),
    "nearest resize": lambda net, x: net.add(
        "Resize", x, "", net.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest"
    ),
    "tile": lambda net, x: net.add("Tile", x, net.ints(1, 1, 1, 2)),
    "split": lambda net, x: net.add("Concat", *net.add("Split", x, net.ints(2, 6), axis=1, out=["s", "r"]), axis=1),
}


@pytest.mark.parametrize("move", MOVES)
def test_what_moves_numbers_stays_in_integers_with_one_scale(move, tmp_path):
    model, x = make(lambda net: chain(net, MOVES[move]), out=("n", None)), images()
    before = run(model, {"x": x})
    plan = static(model, {"x": x})
    assert closeness(before, run(model, {"x": x})) > 30
    assert conversions(optimised(model, tmp_path)) == (1, 1)
    grids = {n.outputs[0].name: n.inputs[1:] for n in model.graph if n.op_type == "QuantizeLinear"}
    assert plan.same_scale
    for name, source in plan.same_scale.items():
        assert grids[f"{name}.quantized"] == grids[f"{source}.quantized"], (name, source)


@pytest.mark.parametrize(
    "step",
    [
        lambda net, x: net.add("MaxPool", x, kernel_shape=[2, 2], out=["m", "where"])[0],
        lambda net, x: net.add("Pad", x, net.ints(0, 0, 1, 1, 0, 0, 1, 1), net.const(np.float32(3))),
        lambda net, x: net.add("Resize", x, "", net.const(np.array([1, 1, 2, 2], np.float32)), mode="linear"),
    ],
    ids=["positions", "padding with a number", "interpolation"],
)
def test_what_does_more_than_move_has_its_own_scale(step):
    def build(net):
        x = step(net, net.conv("x", 3, 8))
        y = net.add("Flatten", net.add("Conv", x, net.weight(4, 8, 1, 1)))
        if "where" in [name for node in net.nodes for name in node.output]:
            extra = net.add("ReduceMax", net.add("Cast", "where", to=FLOAT), keepdims=0)
            y = net.add("Add", y, net.add("Mul", extra, net.const(np.float32(1e-3))))
        net.add("Identity", y, out="y")

    model, x = make(build, out=("n", None)), images()
    before = run(model, {"x": x})
    plan = static(model, {"x": x})
    assert not [node for node in plan.nodes if node.op_type in ("MaxPool", "Pad", "Resize")]
    assert closeness(before, run(model, {"x": x})) > 30


def test_shapes_that_are_computed_stay_integers_of_64_bits():
    """Shape, Gather, Unsqueeze, Concat, Reshape, as exporters write x.view(x.size(0), -1)."""

    def build(net):
        x = net.add("Relu", net.conv("x", 3, 8))
        size = net.add("Shape", x)
        n = net.add("Gather", size, net.const(np.int64(0)))
        half = net.add("Slice", size, net.ints(1), net.ints(2))
        width = net.add("Mul", half, net.ints(256))
        shape = net.add(
            "Concat", net.add("Unsqueeze", n, net.ints(0)), net.add("Reshape", width, net.ints(-1)), axis=0
        )
        linear(net, net.add("Reshape", x, shape), 8 * 16 * 16, 10, out="y")

    model, x = make(build), images()
    integers = {
        str(value.name): value.dtype
        for node in model.graph
        for value in node.outputs
        if value.dtype != ir.DataType.FLOAT
    }
    assert len(integers) >= 5
    before = run(model, {"x": x})
    plan = static(model, {"x": x})
    assert not set(integers) & {str(value.name) for value in plan.activations}
    assert {node.op_type for node in plan.nodes} == {"Conv", "Reshape", "Gemm"}
    assert closeness(before, run(model, {"x": x})) > 30


def test_every_activation_of_a_plan_is_float():
    model = make(residual_net)
    plan = make_plan(model, include=[], exclude=[])
    assert all(value.dtype == ir.DataType.FLOAT for value in plan.activations)


def transformer(net, width=32, tokens=6, heads=4):
    net.input("ids", ["n", tokens], INT64)
    x = net.add("Gather", net.weight(50, width, name="table", scale=1.0), "ids")
    x = net.add("Add", x, net.weight(tokens, width, scale=0.5))
    for _ in range(2):
        h = net.add("LayerNormalization", x, net.const(np.ones(width, np.float32)), net.weight(width, scale=0.1))
        parts = []
        for _ in range(3):
            part = net.add("Add", net.add("MatMul", h, net.weight(width, width)), net.weight(width, scale=0.1))
            part = net.add("Reshape", part, net.ints(0, tokens, heads, width // heads))
            parts.append(net.add("Transpose", part, perm=[0, 2, 1, 3]))
        scores = net.add("MatMul", parts[0], net.add("Transpose", parts[1], perm=[0, 1, 3, 2]))
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), parts[2])
        mixed = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, tokens, width))
        x = net.add("Add", x, net.add("MatMul", mixed, net.weight(width, width)))
        h = net.add("LayerNormalization", x, net.const(np.ones(width, np.float32)), net.weight(width, scale=0.1))
        h = net.add("Add", net.add("MatMul", h, net.weight(width, 64)), net.weight(64, scale=0.1))
        h = net.add("Mul", h, net.add("Sigmoid", h))
        x = net.add("Add", x, net.add("MatMul", h, net.weight(64, width)))
    linear(net, net.add("ReduceMean", x, axes=[1], keepdims=0), width, 5, out="y")


@pytest.mark.parametrize("arithmetic", [False, True])
def test_transformer(arithmetic, tmp_path):
    net = Net(17, seed=8)
    transformer(net)
    net.output("y", ["n", 5])
    model = net.build()
    feeds = {"ids": RNG.integers(0, 50, (16, 6))}
    before = run(model, feeds)
    plan = static(model, feeds, arithmetic=arithmetic)
    assert closeness(before, run(model, feeds)) > 25
    # Twelve projections and the classifier; the four products of attention have no weight.
    assert sum(node.op_type in ("MatMul", "Gemm") for node in plan.nodes) == 13
    save(model, tmp_path / "m.onnx")
    counts = audit(tmp_path / "m.onnx", plan.decisions)
    assert counts["float"] == 4 and {entry["reason"] for entry in counts["unfused"]} == {"multiplies two activations"}
    # Sums of the residual stream and the normalisations between them keep their floats.
    assert not any(node.op_type == "LayerNormalization" for node in plan.nodes)


def test_graph_outputs_keep_names_and_types():
    def build(net):
        a = net.add("Relu", net.conv("x", 3, 8), out="a")
        b = net.conv(a, 8, 8)
        net.add("Add", a, b, out="b")
        net.add("Flatten", net.conv("b", 8, 4), out="y")
        net.output("a", ["n", 8, 16, 16])
        net.output("b", ["n", 8, 16, 16])
        net.output("x")

    net = Net(13, seed=21)
    net.input("x", ("n", 3, 16, 16))
    build(net)
    net.output("y", ("n", None))
    model, x = net.build(), images()
    before = run(model, {"x": x})
    inputs, outputs = ([v.name for v in values] for values in (model.graph.inputs, model.graph.outputs))
    static(model, {"x": x})
    assert ([v.name for v in model.graph.inputs], [v.name for v in model.graph.outputs]) == (inputs, outputs)
    after = run(model, {"x": x})
    assert closeness(before, after) > 30
    np.testing.assert_array_equal(after[outputs.index("x")], x)


def layer_pair(biases, weight_scale=1.0, shared=False, kind="Conv"):
    net = Net(13, seed=2)
    net.input("x", ["n", 4, 6, 6] if kind == "Conv" else ["n", 16])
    last = "x"
    for number, bias in enumerate(biases):
        shape = (4, 4, 1, 1) if kind == "Conv" else (16, 16)
        name = "w" if shared else f"w{number}"
        if name not in [tensor.name for tensor in net.constants]:
            net.weight(*shape, name=name, scale=weight_scale)
        last = net.add(kind, last, name, net.const(np.full(shape[0], bias, np.float32)), out=f"o{number}")
    net.add("Identity", last, out="y")
    net.output("y", ["n", 4, 6, 6] if kind == "Conv" else ["n", 16])
    x = RNG.standard_normal((4, 4, 6, 6) if kind == "Conv" else (4, 16)).astype(np.float32)
    return net.build(), x


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
@pytest.mark.parametrize("weight_scale", [1.0, 1e-4, 1e-9])
@pytest.mark.parametrize("bias", [0.0, 1.0, -1000.0, 1e6])
def test_biases_of_any_size_beside_weights_of_any_size(bias, weight_scale, kind):
    """A bias counts in steps of activation scale times weight scale: where the steps are too fine, they widen."""
    model, x = layer_pair([bias], weight_scale, kind=kind)
    before = run(model, {"x": x})
    static(model, {"x": x})
    stored = [v.const_value for v in model.graph.initializers.values() if v.const_value.dtype == ir.DataType.INT32]
    assert len(stored) == 1 and np.abs(stored[0].numpy().astype(np.int64)).max() <= 2**31 - 1
    # Measured against the range of the output, which is what eight bits have to hold.
    error = np.abs(run(model, {"x": x})[0] - before[0]).max()
    assert error <= np.abs(before[0]).max() / 50


def test_a_channel_without_weights_keeps_its_bias():
    model, x = layer_pair([0.3])
    weight = model.graph.initializers["w0"]
    array = weight.const_value.numpy().copy()
    array[1:] = 0
    array[0] *= 1e-3
    weight.const_value = ir.tensor(array, name="w0")
    before = run(model, {"x": x})
    static(model, {"x": x})
    np.testing.assert_allclose(run(model, {"x": x})[0], before[0], atol=0.003)


def test_layers_that_share_a_weight_share_its_integers():
    model, x = layer_pair([0.1, -0.2, 5.0], shared=True)
    before = run(model, {"x": x})
    static(model, {"x": x})
    assert [name for name in model.graph.initializers if name.startswith("w.q")] == ["w.q"]
    assert closeness(before, run(model, {"x": x})) > 30


@pytest.mark.parametrize("biases", [[0.1, 3e5], [3e5, 0.1]])
def test_a_bias_that_needs_wider_steps_does_not_coarsen_the_weight_for_others(biases):
    model, x = layer_pair(biases, weight_scale=1e-3, shared=True)
    before = run(model, {"x": x})
    static(model, {"x": x})
    assert len([name for name in model.graph.initializers if name.startswith("w.q")]) == 2
    for value in model.graph.initializers.values():
        if value.const_value.dtype == ir.DataType.INT32:
            assert np.abs(value.const_value.numpy().astype(np.int64)).max() < 2**31 - 1
    assert closeness(before, run(model, {"x": x})) > 30


@pytest.mark.parametrize("bias", [(24,), (1, 24), (), (1,), None])
@pytest.mark.parametrize("trans", [0, 1])
def test_gemm_biases(bias, trans, tmp_path):
    net = Net(13, seed=3)
    net.input("x", ["n", 16])
    inputs = ["x", net.weight(*((24, 16) if trans else (16, 24)))] + ([] if bias is None else [net.weight(*bias)])
    linear(net, net.add("Relu", net.add("Gemm", *inputs, transB=trans)), 24, 8, out="y")
    net.output("y", ["n", 8])
    model, x = net.build(), RNG.standard_normal((8, 16)).astype(np.float32)
    before = run(model, {"x": x})
    static(model, {"x": x})
    assert closeness(before, run(model, {"x": x})) > 30
    assert kernels(optimised(model, tmp_path))["QGemm"] == 2


def test_why_layers_stay_float():
    net = Net(13, seed=3)
    net.input("x", [8, 8])
    net.input("i", [1, 8, 4, 4])
    net.add("Gemm", "x", net.weight(8, 8), net.weight(8, 8), out="a", name="full bias")
    net.add("Gemm", "x", net.weight(8, 8), net.weight(8, 1), out="b", name="column bias")
    net.add("Gemm", "x", net.weight(8, 8), out="c", name="scaled", alpha=2.0)
    net.add("MatMul", "x", "x", out="d", name="square")
    net.add("MatMul", net.weight(8, 8), "x", out="e", name="left")
    net.add("ConvTranspose", "i", net.weight(8, 8, 3, 3), out="f", name="up")
    net.add("Conv", "i", net.weight(8, 8, 3, 3), out="g", name="excluded conv")
    net.add("Conv", "i", net.weight(8, 8, 3, 3), out="h", name="sensitive conv")
    net.add("MatMul", "i", net.weight(8, 4, 4), out="j", name="batched")
    net.add("Gemm", "x", net.weight(8, 8), net.add("ReduceMax", "x", axes=[0], keepdims=0), out="k", name="live bias")
    for name in "abcdek":
        net.output(name, [8, 8])
    for name in "fghj":
        net.output(name, [None] * 4)
    plan = make_plan(net.build(), include=[], exclude=["excluded*"], keep_float=frozenset({"sensitive conv"}))
    reasons = {decision.target: decision.reason for decision in plan.decisions}
    assert plan.nodes == [] and plan.activations == []
    assert reasons == {
        "full bias": "its bias is not one number for each output",
        "column bias": "its bias is not one number for each output",
        "scaled": "scaled or transposed Gemm",
        "square": "multiplies two activations",
        "left": "its left operand is the constant",
        "up": "onnxruntime has no integer kernel for ConvTranspose",
        "excluded conv": "excluded by 'excluded*'",
        "sensitive conv": "too sensitive: in integers it cost more fidelity than the budget allows",
        "batched": "its weight is not a matrix",
        "live bias": "its bias is computed at run time",
    }


def test_a_sum_that_no_layer_reads_stays_float():
    def build(net):
        x = net.conv("x", 3, 3)
        net.add("Tanh", net.add("Add", x, "x"), out="y")

    model = make(build, out=("n", 3, 16, 16))
    plan = make_plan(model, include=[], exclude=[])
    assert [node.op_type for node in plan.nodes] == ["Conv"]


def test_a_gate_from_a_float_operator_joins_the_product(tmp_path):
    """As in MobileNetV3: quantizing the small gate is cheaper than unpacking the image."""

    def build(net):
        x = net.add("HardSwish", net.conv("x", 3, 8))
        x = net.conv(x, 8, 8)
        gate = net.add("Softsign", net.conv(net.add("GlobalAveragePool", x), 8, 8, kernel=1))
        net.add("Flatten", net.conv(net.add("Mul", x, gate), 8, 4), out="y")

    model, x = make(build, 17, out=("n", None)), images()
    before = run(model, {"x": x})
    plan = static(model, {"x": x})
    assert "Mul" in {node.op_type for node in plan.nodes}
    assert closeness(before, run(model, {"x": x})) > 25
    found = kernels(optimised(model, tmp_path))
    assert found["QLinearMul"] == 2 and found["Mul"] == 0 and found["Conv"] == 0


@pytest.mark.parametrize("op", ["Add", "Mul"])
@pytest.mark.parametrize("signed", [False, True])
def test_constant_operands_are_stored_as_integers(op, signed, tmp_path):
    def build(net):
        x = net.add("MaxPool", net.conv("x", 3, 8), kernel_shape=[2, 2])
        numbers = net.const(net.rng.uniform(-1, 1, (8, 1, 1)).astype(np.float32), "k")
        net.add("Flatten", net.conv(net.add(op, x, numbers), 8, 4), out="y")

    model, x = make(build, out=("n", None)), images()
    before = run(model, {"x": x})
    static(model, {"x": x}, signed=signed)
    assert closeness(before, run(model, {"x": x})) > 25
    assert "k" not in model.graph.initializers
    if not signed:  # On x64 onnxruntime turns int8 activations, but not constants, to uint8.
        found = kernels(optimised(model, tmp_path))
        assert found[f"QLinear{op}"] == 1 and found[op] == 0


@pytest.mark.parametrize(("numbers", "joins"), [(np.linspace(-1, 1, 8), True), (np.geomspace(1e-3, 1e3, 8), False)])
def test_a_constant_operand_that_8_bits_cannot_hold_keeps_the_product_in_float(numbers, joins):
    def build(net):
        x = net.add("MaxPool", net.conv("x", 3, 8), kernel_shape=[2, 2])
        constant = net.const(numbers.astype(np.float32).reshape(8, 1, 1), "k")
        net.add("Flatten", net.conv(net.add("Mul", x, constant), 8, 4), out="y")

    plan = make_plan(make(build, out=("n", None)), include=[], exclude=[])
    assert ("Mul" in {node.op_type for node in plan.nodes}) == joins


def test_nodes_of_subgraphs_stay_as_they_are():
    rng = np.random.default_rng(4)
    net = Net(13, seed=21)
    net.input("x", ["n", 3, 16, 16])
    net.input("c", [], TensorProto.BOOL)
    h = net.add("Relu", net.conv("x", 3, 8), out="h")
    bodies = {}
    for name in ("then", "else"):
        weight = numpy_helper.from_array((rng.standard_normal((8, 8, 1, 1)) / 3).astype(np.float32), f"w_{name}")
        node = helper.make_node("Conv", [h, weight.name], [f"y_{name}"], name=f"conv_{name}")
        output = helper.make_tensor_value_info(f"y_{name}", FLOAT, ["n", 8, 16, 16])
        bodies[f"{name}_branch"] = helper.make_graph([node], name, [], [output], [weight])
    y = net.conv(net.add("If", "c", **bodies), 8, 8)
    net.add("Flatten", net.add("Add", y, net.conv(h, 8, 8)), out="y")
    net.output("y", ["n", None])
    model, x = net.build(), images()
    before = [run(model, {"x": x, "c": np.array(c)})[0] for c in (True, False)]
    feeds = [{"x": x, "c": np.array(c)} for c in (True, False)]
    static(model, *feeds)
    for graph in model.graph.subgraphs():
        assert [node.op_type for node in graph] == ["Conv"]
    assert closeness(before, [run(model, feed)[0] for feed in feeds]) > 30


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_any_rank(rank, tmp_path):
    net = Net(13, seed=6)
    net.input("x", ["n", 4] + [8] * rank)
    x = net.add("Relu", net.add("Conv", "x", net.weight(8, 4, *[3] * rank), net.weight(8, scale=0.1)))
    x = net.add("MaxPool", x, kernel_shape=[2] * rank)
    x = net.add("AveragePool", x, kernel_shape=[2] * rank)
    net.add("Flatten", net.add("Conv", x, net.weight(8, 8, *[1] * rank)), out="y")
    net.output("y", ["n", None])
    model, x = net.build(), RNG.standard_normal((2, 4) + (8,) * rank).astype(np.float32)
    before = run(model, {"x": x})
    static(model, {"x": x})
    assert closeness(before, run(model, {"x": x})) > 28
    assert conversions(optimised(model, tmp_path)) == (1, 1)


def test_a_tensor_that_is_always_zero():
    def build(net):
        x = net.add("Relu", net.conv("x", 3, 8, bias=False))
        x = net.add("Sub", x, x)
        net.add("Flatten", net.conv(x, 8, 4), out="y")

    model, x = make(build, out=("n", None)), images()
    before = run(model, {"x": x})
    static(model, {"x": x})
    after = run(model, {"x": x})
    assert np.isfinite(after[0]).all() and np.abs(after[0] - before[0]).max() < 0.01


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 6.0), (-6.0, 0.0), (-1.0, 3.0), (-1e-9, 1e9), (0.0, 1e-30), (0.0, 0.0)]
)
def test_zero_is_exact_in_every_range(low, high, signed):
    model, _ = layer_pair([0.0])
    plan = make_plan(model, include=[], exclude=[])
    ranges = {str(value.name): (low, high) for value in plan.activations}
    apply_static(model, plan, ranges, ActivationType(signed, WEIGHT_BITS), WeightOptions())
    zero = model.graph.initializers["x.zero"].const_value.numpy()
    scale = model.graph.initializers["x.scale"].const_value.numpy()
    assert (-128 if signed else 0) <= zero <= (127 if signed else 255)
    assert np.isfinite(scale) and scale > 0
    found = run(model, {"x": np.zeros((1, 4, 6, 6), np.float32)})[0]
    np.testing.assert_allclose(found, 0, atol=1e-12)


def test_scales_are_returned_for_each_activation():
    model, x = layer_pair([0.0, 1.0])
    plan = make_plan(model, include=[], exclude=[])
    seen = observe(model, [str(v.name) for v in plan.activations], batches({"x": x}), count=4)
    ranges = {name: (h.low, h.high) for name, h in seen.items()}
    scales = apply_static(model, plan, ranges, ActivationType(False, 8), WeightOptions()).scales
    assert set(scales) == {str(name) for name in ranges}
    assert scales["x"] == pytest.approx((x.max() - x.min()) / 255, rel=1e-6)


def test_what_is_left_in_the_graph():
    """No weight in float beside its integers, no constant that nobody reads."""
    model, x = make(residual_net), images()
    static(model, {"x": x})
    floats = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert all(v.const_value.size <= 32 for v in floats)
    assert all(v.uses() for v in model.graph.initializers.values())
    assert ops(model)["Relu"] == ops(model)["Clip"] == 0
