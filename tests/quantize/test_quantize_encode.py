"""What is written to the graph is what was meant: onnxruntime restores the numbers of affine.dequantize."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_nets import FLOAT, Net, kernels, optimised, run

from modelkit.graph.edit import Namer
from modelkit.graph.save import save
from modelkit.quantize.affine import dequantize, quantize_array
from modelkit.quantize.encode import storage_array, stored_bytes, write_dequantized, write_folded, write_half
from modelkit.runtime import make_session

CENTERS = st.sampled_from(["zero", "range", "mean"])


def holder(array, opset):
    """A net that returns x + w, so that what w became can be read off."""
    net = Net(opset)
    net.input("x", array.shape)
    net.const(array, "w")
    net.add("Add", "x", "w", out="y")
    net.output("y", array.shape)
    return net.build()


def restored(model, shape):
    return run(model, {"x": np.zeros(shape, np.float32)})[0]


@st.composite
def cases(draw):
    shape = draw(st.sampled_from([(8, 12), (4, 6, 2), (3, 4, 2, 2), (16,), (1, 8)]))
    array = np.random.default_rng(draw(st.integers(0, 99))).normal(draw(st.sampled_from([0, 0.7])), 1, shape)
    axis = draw(st.integers(0, len(shape) - 1))
    kind = draw(st.sampled_from(["tensor", "channel", "block"]))
    sharing = {}
    if kind == "channel":
        sharing["reduce_axes"] = tuple(i for i in range(len(shape)) if i != axis)
    elif kind == "block":
        size = draw(st.sampled_from([size for size in range(1, shape[axis] + 1) if shape[axis] % size == 0]))
        sharing["block"] = (axis, size)
    return array.astype(np.float32), axis, sharing


@settings(max_examples=80, deadline=None)
@given(case=cases(), bits=st.integers(2, 8), center=CENTERS)
def test_dequantize_linear_gives_what_was_meant(case, bits, center):
    array, axis, sharing = case
    quantized = quantize_array(array, bits=bits, center=center, **sharing)
    model = holder(array, 21)
    write_dequantized(model.graph.initializers["w"], quantized, axis, Namer(model))
    np.testing.assert_array_equal(restored(model, array.shape), dequantize(quantized))


@settings(max_examples=80, deadline=None)
@given(case=cases(), bits=st.integers(2, 8), center=CENTERS)
def test_cast_and_mul_give_what_was_meant(case, bits, center):
    array, _, sharing = case
    quantized = quantize_array(array, bits=bits, center=center, **sharing)
    model = holder(array, 21 if bits <= 4 else 11)
    write_folded(model.graph.initializers["w"], quantized, Namer(model))
    np.testing.assert_array_equal(restored(model, array.shape), dequantize(quantized))


@pytest.mark.parametrize(("bits", "opset"), [(8, 11), (5, 11), (8, 13), (4, 21), (2, 21)])
@pytest.mark.parametrize("center", ["zero", "range"])
@pytest.mark.parametrize("block", [None, (1, 4)])
def test_cast_and_mul_are_gone_after_loading(bits, opset, center, block, tmp_path):
    array = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)
    model = holder(array, opset)
    quantized = quantize_array(array, bits=bits, center=center, reduce_axes=(1,), block=block)
    write_folded(model.graph.initializers["w"], quantized, Namer(model))
    assert set(kernels(optimised(model, tmp_path))) == {"Add"}


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("center", ["zero", "range"])
def test_stored_bytes_are_those_in_the_file(bits, center):
    array = np.random.default_rng(0).standard_normal((33, 7)).astype(np.float32)
    quantized = quantize_array(array, bits=bits, center=center, reduce_axes=(1,))
    _integers, dtype = storage_array(quantized)
    width = 4 if bits <= 4 else 8
    assert dtype.bitwidth == width
    model = holder(array, 21)
    write_dequantized(model.graph.initializers["w"], quantized, 0, Namer(model))
    tensors = [value.const_value for value in model.graph.initializers.values()]
    assert sum(len(tensor.tobytes()) for tensor in tensors) == stored_bytes(quantized)


def test_four_bits_are_half_the_file(tmp_path):
    array = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    sizes = {}
    for bits in (8, 4):
        model = holder(array, 21)
        write_folded(model.graph.initializers["w"], quantize_array(array, bits=bits), Namer(model))
        save(model, tmp_path / f"{bits}.onnx")
        sizes[bits] = (tmp_path / f"{bits}.onnx").stat().st_size
    assert 0 <= sizes[8] - sizes[4] - 64 * 256 // 2 < 16
    assert sizes[8] < array.nbytes / 4 + 600


def test_names_and_order(tmp_path):
    """The weight's name passes on, taken names are avoided, nodes come before their readers."""
    net = Net(13)
    net.input("x", ["n", 4])
    net.weight(4, 4, name="w")
    net.weight(4, 4, name="w.q")
    net.add("MatMul", "x", "w", out="w.scale")
    net.add("MatMul", "w.scale", "w.q", out="y")
    net.output("y", ["n", 4])
    model = net.build()
    array = model.graph.initializers["w"].const_value.numpy()
    write_folded(model.graph.initializers["w"], quantize_array(array), Namer(model))
    names = [value.name for node in model.graph for value in node.outputs] + list(model.graph.initializers)
    assert len(names) == len(set(names)) and "w" in names and "w" not in model.graph.initializers
    save(model, tmp_path / "m.onnx")
    make_session(tmp_path / "m.onnx")


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
def test_half_precision(dtype, tmp_path):
    array = np.array([0, 1, -1 / 3, 65504, 7e4, -1e9, 1e-7, 3e38], dtype=np.float32)
    model = holder(array, 13)
    error = write_half(model.graph.initializers["w"], dtype, Namer(model))
    if dtype == ir.DataType.FLOAT16:
        expected = np.clip(array, -65504, 65504).astype(np.float16).astype(np.float32)
    else:
        expected = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    actual = restored(model, array.shape)
    np.testing.assert_array_equal(actual, expected)
    assert np.isfinite(actual).all()
    assert error == np.abs(expected - array).max()
    assert set(kernels(optimised(model, tmp_path))) == {"Add"}


def test_largest_numbers_stay_finite_in_bfloat16():
    array = np.full(4, np.finfo(np.float32).max)
    model = holder(array, 13)
    write_half(model.graph.initializers["w"], ir.DataType.BFLOAT16, Namer(model))
    assert np.isfinite(restored(model, array.shape)).all()


def test_weight_in_a_subgraph_is_unpacked_there(tmp_path):
    """The body of an If keeps its own constants; both branches load and give what was meant."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((4, 4)).astype(np.float32) for name in ("then", "else")}
    branches = {}
    for name, array in weights.items():
        node = helper.make_node("MatMul", ["x", f"w_{name}"], [f"y_{name}"], name=f"mm_{name}")
        out = helper.make_tensor_value_info(f"y_{name}", FLOAT, ["n", 4])
        branches[f"{name}_branch"] = helper.make_graph(
            [node], name, [], [out], [numpy_helper.from_array(array, f"w_{name}")]
        )
    net = Net(13)
    net.input("x", ["n", 4])
    net.input("c", [], TensorProto.BOOL)
    net.add("If", "c", out="y", **branches)
    net.output("y", ["n", 4])
    model = net.build()
    made = {}
    for graph in list(model.graph.subgraphs()):
        for value in list(graph.initializers.values()):
            made[value.name] = quantize_array(value.const_value.numpy(), reduce_axes=(0,))
            write_folded(value, made[value.name], Namer(model))
    x = np.eye(4, dtype=np.float32)
    for condition, name in ((True, "w_then"), (False, "w_else")):
        found = run(model, {"x": x, "c": np.array(condition)})[0]
        np.testing.assert_allclose(found, dequantize(made[name]), rtol=1e-6)
    left = kernels(optimised(model, tmp_path))
    assert not {"Cast", "Mul"} & set(left)
