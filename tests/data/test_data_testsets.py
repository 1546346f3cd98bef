"""ONNX test sets: each set a batch, shapes may differ."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelkit.data.open import open_dataset
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec


def spec(name="x", dtype=np.float32, shape=("batch", "len")):
    return TensorSpec(name, np.dtype(dtype), tuple(shape))


def make(folder, *arrays):
    folder.mkdir(parents=True)
    for i, array in enumerate(arrays):
        (folder / f"input_{i}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())


def refused(path, specs, **options):
    with pytest.raises(DataError) as caught:
        open_dataset(path, specs, **options)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


def test_sets_in_the_order_of_their_numbers_with_their_own_shapes(tmp_path):
    sets = {f"test_data_set_{i}": np.full((i + 1, 3 + i), i, np.float32) for i in (0, 1, 2, 10)}
    for name, array in sets.items():
        make(tmp_path / name, array, np.arange(len(array)))
    dataset = open_dataset(tmp_path, [spec(), spec("ids", np.int64, ("batch",))])
    batches = list(dataset.batches(64))
    assert [b.inputs["x"].shape for b in batches] == [(1, 3), (2, 4), (3, 5), (11, 13)]
    assert [b.valid for b in batches] == [1, 2, 3, 11]
    assert dataset.count == 17
    assert dataset.labels is None
    assert [b.valid for b in dataset.batches(64, 5)] == [1, 2, 2]
    part = dataset.subset([0, 2, 16, 6])
    assert [b.inputs["x"].shape for b in part.batches(64)] == [(1, 3), (1, 4), (2, 13)]
    assert [b.inputs["ids"].tolist() for b in part.batches(64)] == [[0], [1], [10, 0]]
    assert dataset.describe()["format"] == "onnx test sets"
    assert refused(tmp_path, [spec(), spec("ids", np.int64, ("batch",))], need_labels=True).problems == [
        "test sets have no labels; labels are needed to measure quality"
    ]


def test_one_set_given_directly_and_a_fixed_batch(tmp_path):
    make(tmp_path / "set", np.ones((4, 3), np.float32))
    dataset = open_dataset(tmp_path / "set", [spec(shape=(4, 3))])
    (batch,) = dataset.batches(1)
    assert (batch.valid, batch.inputs["x"].shape) == (4, (4, 3))
    (batch,) = dataset.subset([1]).batches(1)
    assert (batch.valid, batch.inputs["x"].shape) == (1, (4, 3))


def test_sets_without_a_common_batch_axis_stay_whole(tmp_path):
    for i in range(2):
        make(tmp_path / f"test_data_set_{i}", np.ones((3, 2), np.float32), np.ones((5, 4), np.float32))
    dataset = open_dataset(tmp_path, [spec(shape=("m", 2)), spec("y", shape=("n", 4))])
    batches = list(dataset.batches(1))
    assert [(b.valid, b.inputs["y"].shape) for b in batches] == [(3, (5, 4)), (3, (5, 4))]
    assert dataset.count == 6
    assert [b.valid for b in dataset.batches(1, 4)] == [3, 1]
    with pytest.raises(DataError, match=r"samples cannot be picked from .*: the inputs of a set share no batch axis"):
        list(dataset.subset([5]).batches(1))


def test_mismatches(tmp_path):
    make(tmp_path / "test_data_set_0", np.ones((2, 3), np.int64), np.ones((2, 3), np.float32))
    make(tmp_path / "test_data_set_1", np.array([[1, np.nan, 0]], np.float32))
    make(tmp_path / "test_data_set_2", np.ones((0, 4), np.float32))
    (tmp_path / "test_data_set_2" / "input_3.pb").write_bytes(b"")
    error = refused(tmp_path, [spec(shape=("batch", 3))])
    assert error.problems == [
        "test_data_set_0/input_1.pb feeds nothing: the model has 1 inputs",
        "test_data_set_2/input_3.pb feeds nothing: the model has 1 inputs",
        "test_data_set_0/input_0.pb: input 'x' is int64, the model takes float32; convert it with .astype('float32')",
        "test_data_set_1/input_0.pb: input 'x' has NaN at row 0 (counted from 0)",
        "test_data_set_2/input_0.pb: input 'x' is [0, 4], the model takes [batch, 3] (axis 1 differs)",
        "test_data_set_2 has no samples",
    ]
    error = refused(tmp_path, [spec(), spec("y")])
    assert "test_data_set_1/input_1.pb for input 'y' is missing" in error.problems


def test_strings_and_casts(tmp_path):
    make(tmp_path / "test_data_set_0", np.array(["a", "é"], object), np.array([1.5, 2], np.float64))
    dataset = open_dataset(tmp_path, [spec("s", object, ("N",)), spec("f", np.float32, ("N",))])
    (batch,) = dataset.batches(1)
    assert batch.inputs["s"].tolist() == ["a", "é"]
    assert batch.inputs["f"].dtype == np.float32
    assert dataset.notes == ("input 'f' was cast from float64 to float32",)


@pytest.mark.parametrize("content", [b"", b"hello, this is no tensor", b"\x08\x05\x10\x01\x4a\x02ab"])
def test_no_tensor(tmp_path, content):
    make(tmp_path / "test_data_set_0")
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(content)
    assert "test_data_set_0/input_0.pb is not a " in refused(tmp_path, [spec()]).message


def test_a_sequence_is_no_tensor(tmp_path):
    make(tmp_path / "test_data_set_0")
    sequence = numpy_helper.from_list([np.ones(3, np.float32), np.ones(2, np.float32)])
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(sequence.SerializeToString())
    assert isinstance(sequence, onnx.SequenceProto)
    assert "test_data_set_0/input_0.pb is not a" in refused(tmp_path, [spec(shape=("n",))]).message
