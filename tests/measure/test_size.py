"""Sizes and parameter counts of real files: float, quantized in several ways, packed, external, hostile."""

from __future__ import annotations

import zlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from modelkit.errors import ModelError, UnsafeError, UsageError
from modelkit.measure import size
from modelkit.measure.size import measure_size
from modelkit.measure.stored import unpack

node = helper.make_node


def tensor(name, array, kind=None):
    """A tensor of an array; `kind` for the types that numpy lacks."""
    if kind is None:
        return numpy_helper.from_array(array, name)
    return helper.make_tensor(name, kind, array.shape, array.reshape(-1).tolist())


def write(path, nodes, initializers=(), opset=21, functions=(), **save):
    """Save a graph as it is; these files are read, not run."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", T.FLOAT, None)],
        list(initializers),
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], functions=list(functions), ir_version=10
    )
    onnx.save_model(model, path, **save)
    return path


def counts(path):
    found = measure_size(path)
    return found.parameters, found.nonzero_parameters


WEIGHT = np.array([[1, 0, -2], [0, 0, 3], [4, 5, 0], [-6, 7, 8]], np.float32)  # 12 numbers, 4 zeros


def test_float_weights_and_what_is_not_one(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [
            node("Gemm", ["x", "w", "b"], ["h"]),
            node("Add", ["h", "epsilon"], ["a"]),
            node("Constant", [], ["c"], value=tensor("", np.array([1.0, -0.0, 2.0], np.float32))),
            node("Constant", [], ["d"], value_floats=[0.5, 0.0]),
            node("Constant", [], ["e"], value_float=0.5),
            node("Mul", ["a", "c"], ["m"]),
            node("Reshape", ["m", "shape"], ["r"]),
            node("Resize", ["r", "", "scales"], ["y"]),
        ],
        [
            tensor("w", WEIGHT),
            tensor("b", np.zeros(3, np.float16)),
            tensor("epsilon", np.array(1e-5, np.float32)),
            tensor("shape", np.array([1, -1])),
            tensor("scales", np.array([1.0, 2.0], np.float32)),
            tensor("mask", np.ones(7, bool)),
            tensor("words", np.array(["a", "b"], dtype=object)),
        ],
    )
    found = measure_size(path)
    assert (found.parameters, found.nonzero_parameters) == (12 + 3 + 3 + 2, 8 + 0 + 2 + 1)
    assert found.file_bytes == path.stat().st_size and found.external_bytes == 0
    assert found.deflated_bytes == len(zlib.compress(path.read_bytes(), 6))


def test_shared_weights_count_once_and_subgraphs_and_functions_count(tmp_path):
    branch = [
        helper.make_graph(
            [node("Gemm", ["x", "w", "own"], ["z"])],
            name,
            [],
            [helper.make_tensor_value_info("z", T.FLOAT, None)],
            [tensor("own", np.full(3, value, np.float32))],
        )
        for name, value in (("then", 0), ("else", 1))
    ]
    function = helper.make_function(
        "local",
        "F",
        ["a"],
        ["b"],
        [
            node("Constant", [], ["k"], value=tensor("", np.ones(5, np.float32))),
            node("Add", ["a", "k"], ["b"]),
        ],
        [helper.make_opsetid("", 21)],
    )
    path = write(
        tmp_path / "m.onnx",
        [
            node("If", ["yes"], ["h"], then_branch=branch[0], else_branch=branch[1]),
            node("Gemm", ["x", "w"], ["g"]),
            node("F", ["g"], ["y"], domain="local"),
        ],
        [tensor("w", WEIGHT), tensor("yes", np.array(True))],
        functions=[function],
    )
    assert counts(path) == (12 + 3 + 3 + 5, 8 + 0 + 3 + 5)


def dequantized(kind, weight, zero_point, scale=(1,), **attributes):
    inputs = ["q", "s"] + (["z"] if zero_point is not None else [])
    stored = [tensor("q", weight, kind), tensor("s", np.ones(scale, np.float32))]
    if zero_point is not None:
        stored.append(tensor("z", zero_point, kind))
    nodes = [node("DequantizeLinear", inputs, ["w"], **attributes), node("MatMul", ["x", "w"], ["y"])]
    return nodes, stored


@pytest.mark.parametrize("kind", [T.INT8, T.INT4, T.INT16, T.INT32])
def test_symmetric_integers(tmp_path, kind):
    path = write(tmp_path / "m.onnx", *dequantized(kind, np.clip(WEIGHT.astype(int), -8, 7), None))
    assert counts(path) == (12, 8)


@pytest.mark.parametrize("kind", [T.UINT8, T.UINT4])
def test_zero_points_say_what_zero_is(tmp_path, kind):
    shifted = (WEIGHT + 7).astype(int)
    path = write(tmp_path / "m.onnx", *dequantized(kind, shifted, np.array(7)))
    assert counts(path) == (12, 8)
    per_channel = np.array([3, 0, 6])
    weight = np.array([[3, 3, 3], [0, 0, 0], [6, 6, 6], [3, 0, 6]])
    path = write(tmp_path / "c.onnx", *dequantized(kind, weight, per_channel, (3,), axis=1))
    assert counts(path) == (12, 6)
    rows = np.array([3, 0, 6, 1])
    path = write(tmp_path / "r.onnx", *dequantized(kind, weight, rows, (4,), axis=0))
    assert counts(path) == (12, 3)
    blocked = np.array([[3, 0, 3], [6, 6, 6]])
    path = write(tmp_path / "b.onnx", *dequantized(kind, weight, blocked, (2, 3), axis=0, block_size=2))
    assert counts(path) == (12, int((weight != np.repeat(blocked, 2, axis=0)).sum()))


def test_two_bits(tmp_path):
    weight = np.array([[0, 1, -2], [0, 0, -1], [1, 1, 0], [0, 0, 0]])
    path = write(tmp_path / "m.onnx", *dequantized(T.INT2, weight, None), opset=25)
    assert counts(path) == (12, 5)


@pytest.mark.parametrize("kind", [T.FLOAT8E4M3FN, T.FLOAT8E5M2, T.BFLOAT16, T.FLOAT4E2M1, T.DOUBLE])
def test_other_floats(tmp_path, kind):
    weight = np.array([[1.0, 0.0, -2.0], [-0.0, 0.0, 4.0]])
    path = write(tmp_path / "m.onnx", [node("Cast", ["w"], ["y"], to=T.FLOAT)], [tensor("w", weight, kind)])
    assert counts(path) == (6, 3)


def test_activations_that_are_quantized_hold_no_parameters(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            node("QLinearConv", ["xq", "s", "z", "q", "ws", "wz", "s", "z", "bias"], ["yq"]),
            node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
        ],
        [
            tensor("s", np.array([0.1], np.float32)),
            tensor("z", np.array([128], np.uint8)),
            tensor("q", np.array([[5, 6], [0, 6]], np.int8)),
            tensor("ws", np.ones(2, np.float32)),
            tensor("wz", np.array([5, 0], np.int8)),
            tensor("bias", np.array([0, 9], np.int32)),
        ],
    )
    assert counts(path) == (4 + 2, 2 + 1)


def test_cast_and_mul_decompression(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [
            node("Cast", ["q"], ["f"], to=T.FLOAT),
            node("Mul", ["f", "s"], ["w"]),
            node("MatMul", ["x", "w"], ["h"]),
            node("Cast", ["hs"], ["half"], to=T.FLOAT),
            node("Cast", ["u"], ["g"], to=T.FLOAT),
            node("Cast", ["z"], ["zf"], to=T.FLOAT),
            node("Sub", ["g", "zf"], ["d"]),
            node("Mul", ["half", "d"], ["k"]),
            node("Add", ["h", "k"], ["y"]),
        ],
        [
            tensor("q", WEIGHT.astype(np.int8)),
            tensor("s", np.ones((1, 3), np.float32)),
            tensor("u", np.array([[7, 1], [7, 9]], np.uint8)),
            tensor("z", np.array([[7, 9]], np.uint8)),
            tensor("hs", np.ones(1, np.float16)),
        ],
    )
    assert counts(path) == (12 + 4, 8 + 1)


def test_quantized_embeddings(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [
            node("Gather", ["q", "x"], ["g"]),
            node("Cast", ["g"], ["f"], to=T.FLOAT),
            node("Gather", ["s", "x"], ["gs"]),
            node("Mul", ["f", "gs"], ["y"]),
        ],
        [tensor("q", WEIGHT.astype(np.int8)), tensor("s", np.ones((4, 1), np.float32))],
    )
    assert counts(path) == (12, 8)


def test_dynamic_quantization(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [
            node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
            node("MatMulInteger", ["xq", "q", "xz", "z"], ["i"]),
            node("Cast", ["i"], ["f"], to=T.FLOAT),
            node("Mul", ["xs", "s"], ["scale"]),
            node("Mul", ["f", "scale"], ["y"]),
        ],
        [
            tensor("q", WEIGHT.astype(np.int8)),
            tensor("z", np.array([1, 0, 8], np.int8)),
            tensor("s", np.ones(3, np.float32)),
        ],
    )
    assert counts(path) == (12, int((WEIGHT != [1, 0, 8]).sum()))


@pytest.mark.parametrize("stored_zero_points", [True, False])
def test_weights_that_an_operator_unpacks(tmp_path, stored_zero_points):
    n, k, block = 3, 64, 32
    rng = np.random.default_rng(0)
    zeros = rng.integers(0, 16, (n, 2)) if stored_zero_points else np.full((n, 2), 8)
    numbers = rng.integers(0, 16, (n, 2, block))
    packed = (numbers[..., ::2] | numbers[..., 1::2] << 4).astype(np.uint8)
    stored = [tensor("q", packed), tensor("s", np.ones((n, 2), np.float32))]
    if stored_zero_points:
        stored.append(tensor("z", (zeros[:, :1] | zeros[:, 1:] << 4).astype(np.uint8)))
    inputs = ["x", "q", "s"] + ["z"] * stored_zero_points
    op = node("MatMulNBits", inputs, ["y"], domain="com.microsoft", K=k, N=n, bits=4, block_size=block)
    path = write(tmp_path / "m.onnx", [op], stored)
    assert counts(path) == (n * k, int((numbers != zeros[:, :, None]).sum()))


def test_sparse_initializers(tmp_path):
    model = onnx.load(write(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])]))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor("w", np.array([1.0, 2.0], np.float32)))
    sparse.indices.CopyFrom(tensor("", np.array([0, 5])))
    sparse.dims.extend([4, 3])
    onnx.save(model, tmp_path / "m.onnx")
    assert counts(tmp_path / "m.onnx") == (12, 2)


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.integers(-8, 7), min_size=1, max_size=33),
    zero=st.integers(-8, 7),
)
def test_packed_numbers_of_any_length(tmp_path_factory, numbers, zero):
    path = tmp_path_factory.mktemp("packed") / "m.onnx"
    write(path, *dequantized(T.INT4, np.array(numbers), np.array(zero)))
    assert counts(path) == (len(numbers), sum(number != zero for number in numbers))


@settings(max_examples=25, deadline=None)
@given(bits=st.sampled_from([2, 4, 8]), data=st.data())
def test_unpack_reverses_packing(bits, data):
    per_byte = 8 // bits
    numbers = data.draw(
        st.lists(st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1), min_size=per_byte, max_size=40)
    )
    numbers = numbers[: len(numbers) // per_byte * per_byte]
    packed = [
        sum((number % (1 << bits)) << (bits * place) for place, number in enumerate(numbers[at : at + per_byte]))
        for at in range(0, len(numbers), per_byte)
    ]
    assert unpack(np.array(packed, np.uint8), bits, True).tolist() == numbers
    assert unpack(np.array(packed, np.uint8), bits, False).tolist() == [n % (1 << bits) for n in numbers]


def test_external_data_and_large_tensors(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, (1500, 1100)).astype(np.float32)  # more than one piece
    small = np.array([[1, 0], [3, 3]], np.int8)
    path = write(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [tensor("w", weight), tensor("v", small)],
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    found = measure_size(path)
    data = tmp_path / "m.data"
    assert (found.parameters, found.nonzero_parameters) == (weight.size + 4, np.count_nonzero(weight) + 3)
    assert found.external_bytes == data.stat().st_size
    assert found.file_bytes == path.stat().st_size + data.stat().st_size
    assert found.deflated_bytes == len(zlib.compress(path.read_bytes() + data.read_bytes(), 6))


def test_zero_points_reach_across_pieces(tmp_path):
    rng = np.random.default_rng(0)
    weight, zeros = rng.integers(0, 4, (1100, 1000)), rng.integers(0, 4, 1000)
    path = write(
        tmp_path / "m.onnx",
        [node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1)],
        [
            tensor("q", weight.astype(np.uint8)),
            tensor("s", np.ones(1000, np.float32)),
            tensor("z", zeros.astype(np.uint8)),
        ],
    )
    assert counts(path) == (weight.size, int((weight != zeros).sum()))


def external(tmp_path, **changes):
    """A model whose external data entries were changed by hand."""
    (tmp_path / "model").mkdir(exist_ok=True)
    path = write(
        tmp_path / "model" / "m.onnx",
        [node("MatMul", ["x", "w"], ["y"])],
        [tensor("w", WEIGHT)],
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"location": "../secret"},
            UnsafeError,
            "the external data of 'w' is at '../secret', outside the model's folder",
        ),
        (
            {"location": "/etc/passwd"},
            UnsafeError,
            "the external data of 'w' is at '/etc/passwd', outside the model's folder",
        ),
        ({"location": ""}, UnsafeError, "the external data of 'w' is at '', outside the model's folder"),
        ({"location": "gone"}, ModelError, "the external data file 'gone' of 'w' is missing"),
        ({"offset": "9999"}, ModelError, "the external data file 'm.data' is too short for 'w'"),
        ({"offset": "-4"}, ModelError, "the external data file 'm.data' is too short for 'w'"),
        ({"offset": "abc"}, ModelError, "the external data file 'm.data' is too short for 'w'"),
    ],
)
def test_external_data_that_cannot_be_used(tmp_path, changes, error, message):
    (tmp_path / "secret").write_bytes(bytes(100))
    with pytest.raises(error) as caught:
        measure_size(external(tmp_path, **changes))
    assert caught.value.message == message


def test_a_link_out_of_the_folder(tmp_path):
    path = external(tmp_path, location="link")
    (tmp_path / "secret").write_bytes(bytes(100))
    (path.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeError, match="outside the model's folder"):
        measure_size(path)


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        measure_size(tmp_path / "absent.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("this is not a model, though it says so")
    with pytest.raises(ModelError, match="is not an ONNX model, or it is damaged"):
        measure_size(text)


def test_damaged_tensors(tmp_path):
    path = write(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], [tensor("w", WEIGHT)])
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 1 << 40
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        measure_size(path)
    assert caught.value.message.startswith("'w' holds 48 bytes; its shape [1099511627776, 3] needs")
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.extend([1.0, 2.0])
    onnx.save(model, path)
    with pytest.raises(ModelError, match="'w' does not hold as many numbers as its shape says"):
        measure_size(path)
    model.graph.initializer[0].data_type = 99
    onnx.save(model, path)
    with pytest.raises(ModelError, match="'w' is of the unknown type 99"):
        measure_size(path)


class Calibration:
    """A few random rows for onnxruntime's static quantization."""

    def __init__(self):
        self.rows = iter(np.random.default_rng(0).normal(size=(8, 1, 4)).astype(np.float32))

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"x": row}


@pytest.mark.parametrize("way", ["dynamic", "qdq", "qoperator"])
def test_quantization_by_onnxruntime_keeps_the_count(tmp_path, way):
    from onnxruntime import quantization as ort

    rng = np.random.default_rng(0)
    path = write(
        tmp_path / "m.onnx",
        [
            node("MatMul", ["x", "w"], ["h"]),
            node("Add", ["h", "b"], ["r"]),
            node("Relu", ["r"], ["p"]),
            node("Gemm", ["p", "v", "c"], ["y"]),
        ],
        [
            tensor("w", rng.normal(size=(4, 32)).astype(np.float32)),
            tensor("b", np.zeros(32, np.float32)),
            tensor("v", rng.normal(size=(32, 8)).astype(np.float32)),
            tensor("c", rng.normal(size=8).astype(np.float32)),
        ],
        opset=17,
    )
    target = tmp_path / "q.onnx"
    if way == "dynamic":
        ort.quantize_dynamic(path, target, per_channel=True)
    else:
        kind = ort.QuantFormat.QDQ if way == "qdq" else ort.QuantFormat.QOperator
        ort.quantize_static(path, target, Calibration(), quant_format=kind, per_channel=True)
    before, after = measure_size(path), measure_size(target)
    assert after.parameters == before.parameters == 4 * 32 + 32 + 32 * 8 + 8
    assert 0.97 * before.nonzero_parameters <= after.nonzero_parameters <= before.nonzero_parameters


def test_of_a_large_file_pieces_are_deflated(tmp_path, monkeypatch):
    """Every fourth piece stands for all; the estimate is near what all of them take."""
    random = np.random.default_rng(0)
    array = random.integers(-30, 30, (1024, 1024)).astype(np.float32)
    path = write(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], [tensor("w", array)])
    whole = measure_size(path)
    monkeypatch.setattr(size, "_CHUNK", 1 << 16)
    monkeypatch.setattr(size, "_WHOLE", 1 << 20)
    part = measure_size(path)
    assert part.deflated_bytes != whole.deflated_bytes
    assert part.deflated_bytes == pytest.approx(whole.deflated_bytes, rel=0.02)
    assert part.file_bytes == whole.file_bytes and part.nonzero_parameters == whole.nonzero_parameters
