"""Data that does not fit the model: every mismatch in one error, before any work."""

import numpy as np
import pytest

from modelkit.data.arrays import from_arrays
from modelkit.data.open import open_dataset
from modelkit.errors import DataError, ResourceError
from modelkit.runtime import TensorSpec


def spec(name="x", dtype=np.float32, shape=("batch", 3)):
    return TensorSpec(name, np.dtype(dtype), tuple(shape))


def refused(path, specs, **options):
    with pytest.raises(DataError) as caught:
        open_dataset(path, specs, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_all_mismatches_in_one_error(tmp_path):
    path = tmp_path / "calib.npz"
    np.savez(
        path,
        image=np.zeros((5, 3, 28, 28), np.float32),
        ids=np.zeros((5, 4), np.float32),
        mask=np.zeros(4, np.int64),
        extra=np.zeros(3),
        Scale=np.zeros((5, 1), np.float32),
        labels=np.array([0, 1, 2, 3, -7, 4]),
    )
    specs = [
        spec("image", shape=("batch", 3, 32, 32)),
        spec("ids", np.int64, ("batch", 4)),
        spec("mask", np.int64, ("batch", "seq")),
        spec("scale", shape=("batch", 1)),
    ]
    error = refused(path, specs, classes=4)
    assert error.message == "calib.npz does not fit the model: 8 problems"
    assert error.problems == [
        "input 'scale' (float32 [batch, 1]) is missing; did you mean 'Scale'?",
        "array 'extra' is not an input of the model",
        "array 'Scale' is not an input of the model; did you mean 'scale'?",
        "input 'image' is [5, 3, 28, 28], the model takes [batch, 3, 32, 32] (axes 2, 3 differ)",
        "input 'ids' is float32, the model takes int64; convert it with .astype('int64')",
        "input 'mask' has 1 dimensions [4], the model takes 2 [batch, seq]",
        "there are 6 labels for 5 samples",
        "label -7 at row 4 (counted from 0) is not in 0 to 3; 2 labels are out of range",
    ]
    assert error.hint == (
        "expected image float32 [batch, 3, 32, 32], ids int64 [batch, 4], mask int64 [batch, seq], "
        "scale float32 [batch, 1] and 'labels' with one value for each sample if there are any; "
        "found image, ids, mask, extra, Scale, labels"
    )


@pytest.mark.parametrize(
    ("arrays", "specs", "options", "problem"),
    [
        (
            {"x": np.zeros((3, 3), np.float32), "y": np.zeros((4, 3), np.float32)},
            [spec(), spec("y")],
            {},
            "sample counts differ: x 3, y 4",
        ),
        ({"x": np.zeros((0, 3), np.float32)}, [spec()], {}, "it has no samples"),
        (
            {"x": np.zeros((3, 3), np.float32)},
            [spec()],
            {"need_labels": True},
            "the array 'labels' is missing; labels are needed to measure quality",
        ),
        (
            {"x": np.zeros((3, 3), np.float32), "labels": np.zeros(3, np.float32)},
            [spec()],
            {"classes": 3},
            "labels are float32; they must be integers from 0 to 2",
        ),
        (
            {"x": np.zeros((3, 3), np.float32), "labels": np.array(["a", "b", "c"])},
            [spec()],
            {},
            "labels are string; they must be numbers",
        ),
        (
            {"x": np.zeros((3, 3), np.float32), "labels": np.zeros((3, 2), int)},
            [spec()],
            {"classes": 3},
            "labels are [3, 2]; one integer for each sample is needed",
        ),
        (
            {"x": np.zeros((3, 3), np.float32), "labels": np.array(1)},
            [spec()],
            {},
            "labels are a single value; one for each sample is needed",
        ),
        (
            {"x": np.zeros((3, 3), np.float32), "labels": np.array([0, np.nan, 1])},
            [spec()],
            {},
            "labels have NaN or an infinite value at row 1 (counted from 0)",
        ),
        (
            {"x": np.array([[1, 2, 3], [4, np.nan, np.inf]], np.float32)},
            [spec()],
            {},
            "input 'x' has NaN at row 1 (counted from 0)",
        ),
        (
            {"x": np.array([[1, 2, 3], [4, -np.inf, 1]], np.float32)},
            [spec()],
            {},
            "input 'x' has an infinite value at row 1 (counted from 0)",
        ),
        (
            {"x": np.array([[1, 2, 3], [4, 5, 1e300]])},
            [spec()],
            {},
            "input 'x' has the value 1e+300, which float32 cannot hold, at row 1 (counted from 0)",
        ),
        (
            {"x": np.array([[1, 2, 3], [4, 5, 300]])},
            [spec(dtype=np.uint8)],
            {},
            "input 'x' has the value 300, which uint8 cannot hold, at row 1 (counted from 0)",
        ),
        (
            {"x": np.zeros((3, 3), np.bool_)},
            [spec(dtype=np.uint8)],
            {},
            "input 'x' is bool, the model takes uint8; convert it with .astype('uint8')",
        ),
        (
            {"x": np.zeros((3, 3), np.complex64)},
            [spec()],
            {},
            "input 'x' is complex64, the model takes float32; convert it with .astype('float32')",
        ),
        (
            {"x": np.zeros((3, 3), np.float32)},
            [spec(dtype=object)],
            {},
            "input 'x' is float32, the model takes string",
        ),
    ],
)
@pytest.mark.parametrize("held", [False, True])
def test_one_mismatch_is_in_the_message(tmp_path, arrays, specs, options, problem, held):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    error = refused(path, specs, **options)
    assert error.problems == [problem]
    assert error.message == f"d.npz does not fit the model: {problem}"
    if held:
        with pytest.raises(DataError) as caught:
            from_arrays(arrays, specs, name="d.npz", **options)
        assert caught.value.problems == [problem]


def test_nan_is_found_beyond_the_first_block(tmp_path):
    x = np.zeros((30000, 100), np.float32)
    x[29999, 99] = np.nan
    np.savez_compressed(tmp_path / "d.npz", x=x)
    error = refused(tmp_path / "d.npz", [spec(shape=("n", 100))])
    assert error.problems == ["input 'x' has NaN at row 29999 (counted from 0)"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_may_not_be_read(tmp_path, monkeypatch, folder):
    path = tmp_path if folder else tmp_path / "d.npz"
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32))

    def deny(self, *args):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "iterdir" if folder else "open", deny)
    with pytest.raises(ResourceError) as caught:
        open_dataset(path, [spec()])
    assert caught.value.message == f"may not read {path}"
    assert caught.value.exit_code == 5
    assert caught.value.hint == "check its permissions"
