"""Gemm as MatMul and Add: whatever its attributes, the outputs stay; so do names, and bytes."""

import itertools

import numpy as np
import pytest
from quantize_nets import Net, kernels, ops, optimised, run

from modelkit.graph.edit import Namer
from modelkit.quantize.affine import quantize_array
from modelkit.quantize.encode import write_dequantized
from modelkit.quantize.gemm import biasless_to_matmul, gemms_to_matmul, is_plain_gemm, keep_apart

X = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
BIASES = {"none": None, "vector": (5,), "scalar": (), "one": (1,), "row": (1, 5), "column": (3, 1), "full": (3, 5)}


def gemm_net(bias, **attributes):
    net = Net(13)
    net.input("x", [6, 3] if attributes.get("transA") else [3, 6])
    net.weight(*((5, 6) if attributes.get("transB") else (6, 5)), name="w")
    inputs = ["x", "w"]
    if BIASES[bias] is not None:
        inputs.append(net.const(net.rng.standard_normal(BIASES[bias]).astype(np.float32), "b"))
    net.add("Gemm", *inputs, out="y", **attributes)
    net.output("y", [3, 5])
    return net.build()


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize(
    ("trans_a", "trans_b", "alpha", "beta"), list(itertools.product([0, 1], [0, 1], [1.0, 0.5], [1.0, 2.0]))
)
def test_every_variant_keeps_its_outputs(bias, trans_a, trans_b, alpha, beta):
    model = gemm_net(bias, transA=trans_a, transB=trans_b, alpha=alpha, beta=beta)
    x = X.T.copy() if trans_a else X
    before = run(model, {"x": x})
    plain = not trans_a and alpha == 1 and (beta == 1 or bias == "none")
    assert gemms_to_matmul(model) == int(plain)
    assert ops(model)["Gemm"] == int(not plain)
    after = run(model, {"x": x})
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5, atol=1e-6)
    assert model.graph.outputs[0].name == "y"
    if plain:
        assert next(node.name for node in model.graph if node.op_type == "MatMul") == "gemm1"
        assert "w" in model.graph.initializers


def two_readers():
    """Two Gemm, one behind the other, that read one transposed weight."""
    net = Net(13)
    net.input("x", [3, 6])
    net.weight(6, 6, name="w")
    first = net.add("Gemm", "x", "w", transB=1)
    net.add("Gemm", first, "w", out="y", transB=1)
    net.output("y", [3, 6])
    return net.build()


def test_a_weight_that_is_turned_for_two_readers_is_stored_once():
    model = two_readers()
    before = run(model, {"x": X})
    assert gemms_to_matmul(model) == 2
    assert list(model.graph.initializers) == ["w"]
    np.testing.assert_allclose(run(model, {"x": X})[0], before[0], rtol=1e-5)


@pytest.mark.parametrize("other", ["matmul", "plain gemm", "output", "bias"])
def test_a_weight_that_others_read_as_it_is_stays(other):
    net = Net(13)
    net.input("x", [3, 6])
    net.weight(6, 6, name="w")
    first = net.add("Gemm", "x", "w", transB=1, out="y")
    net.output("y", [3, 6])
    if other == "matmul":
        net.add("MatMul", first, "w", out="z")
    elif other == "plain gemm":
        net.add("Gemm", first, "w", out="z")
    elif other == "bias":
        net.input("x6", [6, 6])
        net.weight(6, 6, name="v")
        net.add("Gemm", "x6", "v", "w", out="z", transB=1)
    if other == "output":
        net.output("w", [6, 6])
    else:
        net.output("z", [None, 6])
    model = net.build()
    feeds = {"x": X} | ({"x6": np.eye(6, dtype=np.float32)} if other == "bias" else {})
    before = run(model, feeds)
    gemms_to_matmul(model)
    assert [v.shape for v in model.graph.initializers.values() if v.name == "w"]
    assert sum(v.const_value.size == 36 for v in model.graph.initializers.values()) <= 2
    for a, b in zip(before, run(model, feeds), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    assert [v.name for v in model.graph.outputs] == ["y", "w" if other == "output" else "z"]


def test_weight_that_is_computed_is_left_alone():
    net = Net(13)
    net.input("x", [3, 6])
    net.input("w", [6, 5])
    net.add("Gemm", "x", "w", out="y")
    net.output("y", [3, 5])
    model = net.build()
    assert not any(is_plain_gemm(node) for node in model.graph)
    assert gemms_to_matmul(model) == 0


def matmul_add(bias_first, quantized, dtype=np.float32):
    net = Net(13)
    net.input("x", [3, 6])
    net.weight(6, 5, name="w")
    net.const(np.array([0.5, -1, 0, 2, -0.0], dtype=dtype), "b")
    product = net.add("MatMul", "x", "w")
    net.add("Add", *(("b", product) if bias_first else (product, "b")), out="y")
    net.output("y", [3, 5])
    model = net.build()
    if quantized:
        value = model.graph.initializers["w"]
        write_dequantized(value, quantize_array(value.const_value.numpy(), reduce_axes=(0,)), 1, Namer(model))
    return model


@pytest.mark.parametrize("bias_first", [False, True])
def test_keep_apart_writes_sum(bias_first, tmp_path):
    model = matmul_add(bias_first, quantized=True)
    before = run(model, {"x": X})
    assert keep_apart(model) == 1
    assert ops(model)["Sum"] == 1 and ops(model)["Add"] == 0
    np.testing.assert_allclose(run(model, {"x": X})[0], before[0], rtol=1e-5, atol=1e-6)


def test_layers_in_a_row_with_activations_between_all_read_small_weights(tmp_path):
    net = Net(18)
    x = net.input("x", ["n", 64])
    for number in range(3):
        x = net.add(
            "Relu", net.add("Add", net.add("MatMul", x, net.weight(64, 64, name=f"w{number}")), net.weight(64))
        )
    net.add("Identity", x, out="y")
    net.output("y", ["n", 64])
    model = net.build()
    for number in range(3):
        value = model.graph.initializers[f"w{number}"]
        write_dequantized(value, quantize_array(value.const_value.numpy(), reduce_axes=(0,)), 1, Namer(model))
    assert keep_apart(model) == 3
    assert kernels(optimised(model, tmp_path))["MatMulNBits"] == 3


@pytest.mark.parametrize("shape", [(2, 32), ("n", 32), ("n", 5, 32), (2, 5, 32)])
@pytest.mark.parametrize("other", ["x", "bias", "row", "square"])
def test_no_sum_makes_onnxruntime_unpack_weights_at_run_time(shape, other, tmp_path):
    net = Net(13)
    net.input("x", shape)
    net.weight(32, 32, name="w")
    added = {"x": "x", "bias": net.weight(32), "row": net.weight(1, 32), "square": net.add("MatMul", "x", "w")}[other]
    net.add("Add", net.add("MatMul", "x", net.weight(32, 32, name="v")), added, out="y")
    net.output("y", shape)
    model = net.build()
    for name in set(model.graph.initializers) & {"w", "v"}:
        value = model.graph.initializers[name]
        write_dequantized(value, quantize_array(value.const_value.numpy(), reduce_axes=(0,)), 1, Namer(model))
    ones = np.ones([2 if size == "n" else size for size in shape], np.float32)
    before = run(model, {"x": ones})
    assert keep_apart(model) == 1
    after = run(model, {"x": ones})
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5, atol=1e-5)
    assert "DequantizeLinear" not in kernels(optimised(model, tmp_path))


def test_keep_apart_leaves_what_is_not_quantized():
    """A float MatMul and Add are faster joined."""
    model = matmul_add(False, quantized=False)
    assert keep_apart(model) == 0
    assert ops(model) == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("bias", ["none", "vector"])
@pytest.mark.parametrize(("trans_a", "trans_b", "alpha"), list(itertools.product([0, 1], [0, 1], [1.0, 0.5])))
def test_a_gemm_without_bias_is_a_matmul_whose_weight_is_turned_at_load(tmp_path, bias, trans_a, trans_b, alpha):
    model = gemm_net(bias, transA=trans_a, transB=trans_b, alpha=alpha)
    x = X.T.copy() if trans_a else X
    before = run(model, {"x": x})
    plain = not trans_a and alpha == 1 and bias == "none"
    assert biasless_to_matmul(model) == int(plain)
    np.testing.assert_allclose(run(model, {"x": x})[0], before[0], rtol=1e-5, atol=1e-6)
    assert ops(model)["Gemm"] == int(not plain)
    if plain:
        assert next(node.name for node in model.graph if node.op_type == "MatMul") == "gemm1"
        assert kernels(optimised(model, tmp_path))["Transpose"] == 0


def test_a_gemm_without_bias_stays_in_front_of_what_it_is_fused_with(tmp_path):
    net = Net(13)
    net.input("x", [3, 6])
    net.weight(5, 6, name="w")
    product = net.add("Gemm", "x", "w", transB=1)
    net.add("Relu", product, out="y")
    net.output("y", [3, 5])
    model = net.build()
    assert biasless_to_matmul(model) == 0
    assert kernels(optimised(model, tmp_path))["FusedGemm"] == 1


def test_readers_of_one_weight_share_its_transpose():
    model = two_readers()
    before = run(model, {"x": X})
    assert biasless_to_matmul(model) == 2
    assert ops(model)["Transpose"] == 1
    np.testing.assert_allclose(run(model, {"x": X})[0], before[0], rtol=1e-5)
