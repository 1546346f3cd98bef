"""Synthetic inputs: reproducible, the same at every batch size, and onnxruntime takes them."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelkit.data.synthetic import synthetic_dataset
from modelkit.errors import DataError, UsageError
from modelkit.runtime import TensorSpec, input_specs, make_session


def spec(name="x", dtype=np.float32, shape=("batch", 3)):
    return TensorSpec(name, np.dtype(dtype), tuple(shape))


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 20), other=st.integers(1, 20), count=st.integers(1, 20), seed=st.integers(0, 9))
def test_values_do_not_depend_on_the_batch_size(size, other, count, seed):
    specs = [spec(), spec("ids", np.int64, ("batch", "seq")), spec("s", object), spec("b", bool)]
    dataset = synthetic_dataset(specs, count=count, seed=seed, vocabulary={"ids": 1000})
    for name in ("x", "ids", "s", "b"):
        a = np.concatenate([b.inputs[name] for b in dataset.batches(size)])
        b = np.concatenate([b.inputs[name] for b in dataset.batches(other)])
        np.testing.assert_array_equal(a, b)
        assert len(a) == count
    first = next(dataset.subset([count - 1]).batches(1)).inputs["x"]
    np.testing.assert_array_equal(first[0], list(dataset.batches(1))[-1].inputs["x"][0])


def test_distributions_and_description():
    specs = [spec(shape=("n", 200)), spec("ids", np.int32, ("n", 200)), spec("mask", np.int64, ("n", 200))]
    dataset = synthetic_dataset(specs, count=50, vocabulary={"ids": 30})
    (batch,) = dataset.batches(50)
    x = batch.inputs["x"]
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05
    assert (batch.inputs["ids"].min(), batch.inputs["ids"].max()) == (0, 29)
    assert set(np.unique(batch.inputs["mask"])) == {0, 1}
    assert batch.inputs["ids"].dtype == np.int32
    assert (dataset.synthetic, dataset.has_labels, dataset.path) == (True, False, None)
    described = dataset.describe()
    assert described["synthetic"] is True
    assert "input 'ids' is synthetic: int32 [n, 200] as [1, 200], values below 30" in described["notes"]
    assert dataset.fingerprint() == synthetic_dataset(specs, count=50, vocabulary={"ids": 30}).fingerprint()
    assert dataset.fingerprint() != synthetic_dataset(specs, count=50, vocabulary={"ids": 31}).fingerprint()
    assert dataset.fingerprint() != synthetic_dataset(specs, count=50, seed=1, vocabulary={"ids": 30}).fingerprint()


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (("b", 3, "h", "w"), (2, 3, 64, 64)),
        (("b", "c", "h", "w"), (2, 3, 64, 64)),
        (("b", "h", "w", 3), (2, 64, 64, 3)),
        (("b", "seq"), (2, 16)),
        (("b", "seq", 128), (2, 16, 128)),
        (("b", "?", "?"), (2, 16, 16)),
        (("b",), (2,)),
        ((1, 5), (1, 5)),
        ((7, 5), (7, 5)),
    ],
)
def test_symbolic_dimensions(shape, wanted):
    batch = next(synthetic_dataset([spec(shape=shape)], count=9).batches(2))
    assert batch.inputs["x"].shape == wanted


def test_dims_override_and_stay_consistent():
    specs = [
        spec("ids", np.int64, ("batch", "seq")),
        spec("mask", np.int64, ("batch", "past + seq")),
        spec("past", shape=("batch", 4, "past", 8)),
        spec("pos", np.int64, ("seq",)),
        spec("t", shape=()),
    ]
    (batch,) = synthetic_dataset(specs, count=3, dims={"seq": 5}).batches(8)
    shapes = {name: array.shape for name, array in batch.inputs.items()}
    assert shapes == {"ids": (3, 5), "mask": (3, 21), "past": (3, 4, 16, 8), "pos": (5,), "t": ()}
    batches = list(synthetic_dataset(specs, count=3, dims={"batch": 2}).batches(8))
    assert [(b.valid, len(b.inputs["ids"])) for b in batches] == [(2, 2), (1, 2)]


def test_samples_on_another_axis_and_shared_inputs():
    specs = [spec(shape=("seq", "batch", 4)), spec("h", shape=(1, "batch", 5)), spec("k", shape=(7, 7))]
    batches = list(synthetic_dataset(specs, count=5).batches(3))
    assert [b.inputs["x"].shape for b in batches] == [(16, 3, 4), (16, 2, 4)]
    assert [b.inputs["h"].shape for b in batches] == [(1, 3, 5), (1, 2, 5)]
    np.testing.assert_array_equal(batches[0].inputs["k"], batches[1].inputs["k"])


def test_small_integer_types_and_no_batch():
    dataset = synthetic_dataset([spec("x", np.int8, ())], vocabulary={"x": 5000})
    (batch,) = dataset.batches(4)
    assert dataset.count == 1
    assert 0 <= batch.inputs["x"] < 127


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "the number of synthetic samples is 0; it must be at least 1"),
        ({"seed": -1}, "the seed is -1; it must be at least 0"),
        ({"dims": {"len": 3}}, "the model has no symbolic dimension 'len'"),
        ({"dims": {"seq": 0}}, "the size of dimension 'seq' is 0; it must be at least 1"),
        ({"vocabulary": {"y": 3}}, "the model has no input 'y' to give a vocabulary to"),
        ({"vocabulary": {"x": 0}}, "the vocabulary of input 'x' is 0; it must be at least 1"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(UsageError) as caught:
        synthetic_dataset([spec(dtype=np.int64, shape=("batch", "seq"))], **options)
    assert caught.value.message == message


def test_nothing_to_feed_and_too_much():
    with pytest.raises(DataError, match="the model has no inputs, so there is nothing to feed it"):
        synthetic_dataset([])
    with pytest.raises(DataError, match="a synthetic sample of input 'x' would have the shape"):
        synthetic_dataset([spec(shape=("batch", "seq", 1 << 20))], dims={"seq": 1 << 20})


def test_onnxruntime_takes_them():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["seq", "batch", 4])
    h = helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, "batch", 6])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "len"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["seq", 1, "batch", 6])
    e = helper.make_tensor_value_info("e", TensorProto.FLOAT, ["batch", "len", 3])
    weights = [
        helper.make_tensor(n, TensorProto.FLOAT, s, np.full(np.prod(s), 0.1))
        for n, s in (("w", (1, 18, 4)), ("r", (1, 18, 6)), ("table", (11, 3)))
    ]
    nodes = [
        helper.make_node("GRU", ["x", "w", "r", "", "", "h"], ["y"], hidden_size=6),
        helper.make_node("Gather", ["table", "ids"], ["e"]),
    ]
    graph = helper.make_graph(nodes, "g", [x, h, ids], [y, e], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = make_session(model.SerializeToString())
    dataset = synthetic_dataset(input_specs(session), count=5, vocabulary={"ids": 11})
    shapes = [[o.shape for o in session.run(None, b.inputs)] for b in dataset.batches(3)]
    assert shapes == [[(16, 1, 3, 6), (3, 16, 3)], [(16, 1, 2, 6), (2, 16, 3)]]
