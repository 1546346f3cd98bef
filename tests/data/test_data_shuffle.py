"""Samples in random order: each once an epoch, the same for a seed, in memory or in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelkit.data.arrays import from_arrays
from modelkit.data.dataset import Dataset
from modelkit.data.open import open_dataset
from modelkit.data.shuffle import HeldDataset, hold, shuffled, steps_per_epoch
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec

IMAGE = TensorSpec("x", np.dtype(np.float32), ("batch", 3))


def numbered(count: int, batch: int | str = "batch") -> Dataset:
    """Samples that hold their own number, with it as their label."""
    values = np.repeat(np.arange(count, dtype=np.float32)[:, None], 3, axis=1)
    return from_arrays({"x": values}, [TensorSpec("x", np.dtype(np.float32), (batch, 3))], labels=np.arange(count))


@pytest.mark.parametrize("limit", [1 << 20, 0], ids=["in memory", "in a file"])
def test_an_epoch_has_every_sample_once_with_its_label_and_number(tmp_path: Path, limit: int) -> None:
    held = hold(numbered(700), tmp_path, limit=limit)
    assert bool(list(tmp_path.iterdir())) == (limit == 0)
    seen = []
    for numbers, batch in shuffled(held, 64, seed=3, epoch=1):
        assert batch.labels is not None
        assert np.array_equal(batch.inputs["x"][:, 0], numbers) and np.array_equal(batch.labels, numbers)
        seen.append(numbers)
    assert len(seen) == steps_per_epoch(held, 64) == 11 and {len(numbers) for numbers in seen} == {63, 64}
    order = np.concatenate(seen)
    assert np.array_equal(np.sort(order), np.arange(700)) and not np.array_equal(order, np.arange(700))


def test_seed_and_epoch_alone_decide_the_order(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, two = hold(numbered(100), tmp_path), hold(numbered(100), tmp_path / "other", limit=0)

    def order(held: HeldDataset, size: int, seed: int, epoch: int) -> list[int]:
        return [int(i) for numbers, _ in shuffled(held, size, seed=seed, epoch=epoch) for i in numbers]

    assert order(one, 7, 0, 0) == order(two, 32, 0, 0)
    assert len({tuple(order(one, 7, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    held = hold(numbered(10, batch=4), tmp_path)
    batches = list(shuffled(held, 99, seed=0, epoch=0))
    assert [len(numbers) for numbers, _ in batches] == [4, 4, 2]
    assert all(batch.inputs["x"].shape == (4, 3) for _, batch in batches)


def test_what_is_held_stays_the_dataset(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32))
    source = open_dataset(path, [IMAGE])
    held = hold(source, tmp_path)
    assert held.fingerprint() == source.fingerprint() and held.describe() == source.describe()
    for one, other in zip(source.batches(16), held.batches(16), strict=True):
        assert np.array_equal(one.inputs["x"], other.inputs["x"])
    assert hold(held, tmp_path) is held


def test_samples_on_another_axis_and_shared_inputs(tmp_path: Path) -> None:
    specs = [
        TensorSpec("x", np.dtype(np.float32), (2, "batch")),
        TensorSpec("scale", np.dtype(np.float32), (1,)),
    ]
    values = np.arange(20, dtype=np.float32).reshape(2, 10)
    held = hold(from_arrays({"x": values, "scale": np.ones(1, np.float32)}, specs), tmp_path)
    for numbers, batch in shuffled(held, 4, seed=0, epoch=0):
        assert np.array_equal(batch.inputs["x"], values[:, numbers])
        assert np.array_equal(batch.inputs["scale"], [1.0])


def test_samples_of_different_shapes_are_refused(tmp_path: Path) -> None:
    import onnx

    for number, length in enumerate((3, 4)):
        folder = tmp_path / "sets" / f"test_data_set_{number}"
        folder.mkdir(parents=True)
        tensor = onnx.numpy_helper.from_array(np.zeros((2, length), np.float32))
        (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    sets = open_dataset(tmp_path / "sets", [TensorSpec("x", np.dtype(np.float32), ("batch", "length"))])
    with pytest.raises(DataError, match="differ in shape"):
        hold(sets, tmp_path)
