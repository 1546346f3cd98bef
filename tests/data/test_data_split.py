"""Splits: disjoint, complete, stratified, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.data.arrays import from_arrays
from modelkit.data.split import split
from modelkit.errors import DataError, UsageError
from modelkit.runtime import TensorSpec

SPECS = [TensorSpec("x", np.dtype(np.float32), ("batch", 1))]


def dataset(count, labels=None):
    return from_arrays({"x": np.arange(count, dtype=np.float32).reshape(-1, 1)}, SPECS, labels=labels)


def members(part):
    return np.concatenate([b.inputs["x"][:, 0] for b in part.batches(5)]).astype(int)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=3, max_size=120),
    weights=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 5),
)
def test_disjoint_complete_and_stratified(labels, weights, seed):
    labels = np.array(labels)
    shares = {f"p{i}": w / sum(weights) for i, w in enumerate(weights)}
    parts = split(dataset(len(labels), labels), parts=shares, seed=seed)
    assert list(parts) == list(shares)
    found = [members(part) for part in parts.values()]
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    for (name, share), rows in zip(shares.items(), found, strict=True):
        assert len(rows) >= 1
        assert (np.diff(rows) > 0).all()
        assert abs(len(rows) - share * len(labels)) <= 2
        np.testing.assert_array_equal(parts[name].labels, labels[rows])
        for label in np.unique(labels):
            assert abs((labels[rows] == label).sum() - share * (labels == label).sum()) <= 2 + 1e-9
    again = split(dataset(len(labels), labels), parts=shares, seed=seed)
    assert [members(p).tolist() for p in again.values()] == [rows.tolist() for rows in found]


def test_many_classes_of_one_sample_keep_the_shares():
    parts = split(dataset(100, np.arange(100)), parts={"a": 0.2, "b": 0.8}, seed=0)
    assert (parts["a"].count, parts["b"].count) == (20, 80)


@pytest.mark.parametrize("labels", [None, np.linspace(0, 1, 50)])
def test_without_classes_the_shares_are_exact_and_the_seed_matters(labels):
    data = dataset(50, labels)
    parts = split(data, parts={"calibration": 0.3, "test": 0.7}, seed=1)
    assert (parts["calibration"].count, parts["test"].count) == (15, 35)
    assert parts["test"].name == "arrays [test]"
    other = split(data, parts={"calibration": 0.3, "test": 0.7}, seed=2)
    assert members(parts["test"]).tolist() != members(other["test"]).tolist()
    assert parts["test"].fingerprint() != other["test"].fingerprint()


def test_each_part_gets_a_sample():
    parts = split(dataset(3), parts={"a": 0.01, "b": 0.98, "c": 0.01}, seed=0)
    assert [part.count for part in parts.values()] == [1, 1, 1]
    with pytest.raises(DataError) as caught:
        split(dataset(2), parts={"a": 0.2, "b": 0.3, "c": 0.5}, seed=0)
    assert caught.value.message == ("'arrays' has 2 samples, too few for 3 parts (a, b, c) of at least one each")
    assert caught.value.hint


@pytest.mark.parametrize("parts", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}, {"a": 0.5, "b": 0.6}])
def test_wrong_shares(parts):
    with pytest.raises(UsageError, match="the parts of a split must be above 0 and sum to 1; got"):
        split(dataset(9), parts=parts, seed=0)


def test_wrong_seed():
    with pytest.raises(UsageError, match="the seed is -1; it must be at least 0"):
        split(dataset(9), parts={"a": 1.0}, seed=-1)
