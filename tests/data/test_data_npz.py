"""npz and npy folders: what numpy reads, in the same order, and mismatches told all at once."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkit.data.arrays import from_arrays
from modelkit.data.dataset import Batch
from modelkit.data.npyfolder import file_name
from modelkit.data.open import open_dataset
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec


def spec(name="x", dtype=np.float32, shape=("batch", 3)):
    return TensorSpec(name, np.dtype(dtype), tuple(shape))


def gather(dataset, name, size=7, limit=None):
    return np.concatenate([b.inputs[name][: b.valid] for b in dataset.batches(size, limit)])


def refused(path, specs, **options):
    with pytest.raises(DataError) as caught:
        open_dataset(path, specs, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


DTYPES = [
    np.float16,
    np.float32,
    np.float64,
    np.int8,
    np.uint8,
    np.int32,
    np.int64,
    np.uint64,
    np.bool_,
    "<U3",
]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_streams_what_numpy_loads(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=9))
    values = {"elements": {"allow_nan": False, "allow_infinity": False}} if dtype.kind == "f" else {}
    if dtype.kind == "U":
        values = {"elements": st.text("abé", max_size=3)}
    array = data.draw(hnp.arrays(dtype, shape, **values))
    if data.draw(st.booleans()):
        array = np.asfortranarray(array)
    if data.draw(st.booleans()):
        array = array.astype(dtype.newbyteorder(">"))
    path = tmp_path_factory.mktemp("npz") / "d.npz"
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(path, x=array)
    wanted = np.dtype(object) if dtype.kind == "U" else dtype
    dataset = open_dataset(path, [TensorSpec("x", wanted, ("batch", *shape[1:]))])
    size = data.draw(st.integers(1, 10))
    got = list(dataset.batches(size))
    assert [b.valid for b in got[:-1]] == [size] * (len(got) - 1)
    joined = np.concatenate([b.inputs["x"] for b in got])
    with np.load(path) as file:
        np.testing.assert_array_equal(joined, file["x"].astype(wanted))
    assert joined.dtype == wanted
    assert all(b.inputs["x"].dtype.isnative and b.inputs["x"].flags.c_contiguous for b in got)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 50),
    size=st.integers(1, 12),
    fixed=st.none() | st.integers(1, 6),
    indices=st.none() | st.lists(st.integers(0, 49), min_size=1, max_size=60),
    ordered=st.booleans(),
)
def test_batches_cover_each_row_once_in_order(tmp_path_factory, count, size, fixed, indices, ordered):
    path = tmp_path_factory.mktemp("npz") / "d.npz"
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    np.savez(path, x=x, labels=np.arange(count))
    dataset = open_dataset(path, [spec(shape=(fixed or "n", 2))], need_labels=True, classes=count)
    wanted = np.arange(count)
    if indices is not None:
        wanted = np.array(indices) % count
        wanted = np.unique(wanted) if ordered else wanted
        dataset = dataset.subset(wanted)
    assert dataset.count == len(wanted)
    batches = list(dataset.batches(size))
    np.testing.assert_array_equal(np.concatenate([b.inputs["x"][: b.valid] for b in batches]), x[wanted])
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), wanted)
    np.testing.assert_array_equal(dataset.labels, wanted)
    if fixed:
        assert {len(b.inputs["x"]) for b in batches} == {fixed}
        last = batches[-1]
        assert (last.inputs["x"][last.valid :] == last.inputs["x"][last.valid - 1]).all()


def test_limit_stops_early_and_iteration_can_be_repeated(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.arange(30, dtype=np.float32).reshape(10, 3), labels=np.arange(10))
    dataset = open_dataset(tmp_path / "d.npz", [spec()])
    assert [b.valid for b in dataset.batches(4, 6)] == [4, 2]
    assert [b.valid for b in dataset.batches(4, 99)] == [4, 4, 2]
    np.testing.assert_array_equal(gather(dataset, "x", limit=5), gather(dataset, "x")[:5])
    assert list(dataset.batches(4, 6))[1].labels.tolist() == [4, 5]
    with pytest.raises(Exception, match="batch size is 0; it must be at least 1"):
        dataset.batches(0)
    with pytest.raises(Exception, match="number of samples is 0; it must be at least 1"):
        dataset.batches(1, 0)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_samples(tmp_path, save):
    peaks = []
    for count in (4000, 16000):
        save(tmp_path / "d.npz", x=np.ones((count, 500), np.float32))
        tracemalloc.start()
        dataset = open_dataset(tmp_path / "d.npz", [spec(shape=("n", 500))])
        for batch in dataset.batches(32):
            assert batch.valid
        for batch in dataset.subset(np.arange(0, count, 2)).batches(32):
            assert batch.valid
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 8_000_000


@pytest.mark.parametrize(
    ("have", "want"),
    [(np.float64, np.float32), (np.float16, np.float32), (np.int32, np.int64), (np.int64, np.uint8)],
)
def test_casts_within_a_family_are_noted(tmp_path, have, want):
    np.savez(tmp_path / "d.npz", x=np.arange(6).reshape(2, 3).astype(have))
    dataset = open_dataset(tmp_path / "d.npz", [spec(dtype=want)])
    assert gather(dataset, "x").dtype == want
    note = f"input 'x' was cast from {np.dtype(have).name} to {np.dtype(want).name}"
    assert dataset.describe()["notes"] == [note]


def test_bfloat16_and_scalars(tmp_path):
    import ml_dtypes

    np.savez(tmp_path / "d.npz", x=np.ones((2, 3), np.float32), t=np.array(0.5, np.float32))
    specs = [spec(dtype=ml_dtypes.bfloat16), spec("t", shape=())]
    batches = list(open_dataset(tmp_path / "d.npz", specs).batches(1))
    assert len(batches) == 2
    assert batches[0].inputs["x"].dtype == ml_dtypes.bfloat16
    assert batches[0].real("t").shape == ()
    assert all(b.inputs["t"].shape == () and b.inputs["t"] == 0.5 for b in batches)
    np.savez(tmp_path / "d.npz", x=np.ones((2, 3), np.float32), t=np.array(np.nan, np.float32))
    assert refused(tmp_path / "d.npz", specs).problems == ["input 't' is NaN"]


def test_samples_on_another_axis(tmp_path):
    x = np.random.default_rng(0).random((9, 2, 4)).astype(np.float32)
    h = np.random.default_rng(1).random((1, 9, 5)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, h=h)
    dataset = open_dataset(tmp_path / "d.npz", [spec(shape=("batch", 2, 4)), spec("h", shape=(1, "batch", 5))])
    batches = list(dataset.batches(4))
    assert [b.inputs["h"].shape for b in batches] == [(1, 4, 5), (1, 4, 5), (1, 1, 5)]
    np.testing.assert_array_equal(np.concatenate([b.inputs["h"] for b in batches], axis=1), h)
    np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), x)


def test_real_leaves_out_what_fills_up_a_batch():
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    table = np.ones((7, 2), np.float32)
    dataset = from_arrays({"x": x, "table": table}, [spec(shape=(3, 2)), spec("table", shape=(7, 2))])
    batches = list(dataset.batches(8))
    assert [b.inputs["x"].shape for b in batches] == [(3, 2), (3, 2)]
    np.testing.assert_array_equal(np.concatenate([b.real("x") for b in batches]), x)
    assert all(b.real("table").shape == (7, 2) for b in batches)
    other = Batch({"h": np.zeros((1, 4, 5)), "y": np.zeros((4, 2)), "t": np.array(1)}, None, 3, {"h": 1})
    assert [other.real(n).shape for n in ("h", "y", "t")] == [(1, 3, 5), (3, 2), ()]


def test_a_model_of_shared_inputs_has_one_sample(tmp_path):
    np.savez(tmp_path / "d.npz", t=np.array(3, np.int64), labels=np.array([1]))
    dataset = open_dataset(tmp_path / "d.npz", [spec("t", np.int64, ())])
    (batch,) = dataset.batches(8)
    assert (dataset.count, batch.valid, batch.inputs["t"].item(), batch.labels.tolist()) == (1, 1, 3, [1])


def test_labels_may_be_an_input_and_labels_get_one_form(tmp_path):
    np.savez(tmp_path / "d.npz", labels=np.zeros((2, 3), np.float32))
    assert not open_dataset(tmp_path / "d.npz", [spec("labels")]).has_labels
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32), labels=np.array([[1], [0]], np.uint8))
    dataset = open_dataset(tmp_path / "d.npz", [spec()], classes=2)
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [1, 0]
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32), labels=np.array([[1.5, 2], [0, 1]], ">f4"))
    dataset = open_dataset(tmp_path / "d.npz", [spec()])
    assert dataset.labels.dtype == np.float32
    assert dataset.labels.shape == (2, 2)
    assert open_dataset(tmp_path / "d.npz", [spec()], classes=2).labels.shape == (2, 2)


def test_npy_folder_equals_npz(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    x = np.random.default_rng(0).random((11, 3)).astype(np.float32)
    ids = np.asfortranarray(np.arange(22).reshape(11, 2))
    np.save(folder / "x.npy", x)
    np.save(folder / file_name("in/ids:0"), ids)
    np.save(folder / "labels.npy", np.arange(11))
    assert sorted(p.name for p in folder.iterdir()) == ["in_ids_0.npy", "labels.npy", "x.npy"]
    dataset = open_dataset(folder, [spec(), spec("in/ids:0", np.int64, ("batch", 2))], need_labels=True)
    np.testing.assert_array_equal(gather(dataset, "x"), x)
    np.testing.assert_array_equal(gather(dataset, "in/ids:0"), ids)
    np.testing.assert_array_equal(gather(dataset.subset([9, 2, 2]), "x"), x[[9, 2, 2]])
    assert dataset.describe() | {"sha256": ""} == {
        "name": "set",
        "path": "set",
        "format": "npy folder",
        "count": 11,
        "labelled": True,
        "sha256": "",
        "synthetic": False,
        "notes": [],
    }


def test_fingerprint_follows_contents(tmp_path):
    x = np.ones((4, 3), np.float32)
    prints = []
    for values in (x, x, x * 2):
        np.savez(tmp_path / "d.npz", x=values)
        prints.append(open_dataset(tmp_path / "d.npz", [spec()]).fingerprint())
    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 64
    held = [from_arrays({"x": v}, [spec()]).fingerprint() for v in (x, x.copy(), x * 2)]
    assert held[0] == held[1] != held[2]
    dataset = from_arrays({"x": x}, [spec()])
    assert dataset.subset([0, 1]).fingerprint() == dataset.subset([0, 1]).fingerprint()
    assert dataset.subset([0, 1]).fingerprint() != dataset.subset([1, 0]).fingerprint()


def test_subset_is_a_view_on_a_view_and_checks_its_indices():
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    dataset = from_arrays({"x": x}, [spec()], labels=np.arange(10))
    part = dataset.subset([1, 3, 5, 7]).subset([3, 0])
    np.testing.assert_array_equal(gather(part, "x", 1), x[[7, 1]])
    assert part.labels.tolist() == [7, 1]
    with pytest.raises(Exception, match=r"sample 10 is not in 'arrays' \(0 to 9\)"):
        dataset.subset([10])
    with pytest.raises(Exception, match="a part of 'arrays' would have no samples"):
        dataset.subset([])


def test_a_file_that_changes_between_passes_is_an_error(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    np.save(folder / "x.npy", np.ones((100, 3), np.float32))
    dataset = open_dataset(folder, [spec()])
    np.save(folder / "x.npy", np.ones((10, 3), np.float32))
    with pytest.raises(DataError, match=r"set/x.npy is damaged: it ends too early"):
        list(dataset.batches(8))
    (folder / "x.npy").unlink()
    with pytest.raises(DataError, match=r"set/x.npy cannot be read"):
        list(dataset.batches(8))
    with pytest.raises(DataError, match=r"cannot read .*x.npy"):
        dataset.fingerprint()
