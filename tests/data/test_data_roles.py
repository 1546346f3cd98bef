"""Which samples serve for what: a sample that calibrates or selects never tests."""

import numpy as np
import pytest

from modelkit.data.arrays import from_arrays
from modelkit.data.roles import assign_roles
from modelkit.data.synthetic import synthetic_dataset
from modelkit.runtime import TensorSpec

SPECS = [TensorSpec("x", np.dtype(np.float32), ("n", 2))]
MADE_UP = synthetic_dataset(SPECS, count=4)


def dataset(count: int, labelled: bool, start: int = 0):
    x = np.repeat(np.arange(start, start + count, dtype=np.float32)[:, None], 2, axis=1)
    return from_arrays({"x": x}, SPECS, labels=np.arange(count) % 3 if labelled else None, classes=3)


def numbers(data) -> set[float]:
    return set() if data is None else {float(v) for b in data.batches(7) for v in b.inputs["x"][: b.valid, 0]}


@pytest.mark.parametrize(
    ("labelled", "with_test", "training", "shares"),
    [
        (True, False, False, (0.25, 0.25, 0.5)),
        (False, False, False, (0.75, 0.25, 0.0)),
        (True, True, False, (0.5, 0.5, None)),
        (True, False, True, (0.7, 0.1, 0.2)),
        (False, False, True, (0.9, 0.1, 0.0)),
        (True, True, True, (0.9, 0.1, None)),
    ],
)
def test_parts_share_no_sample_and_use_every_one(labelled: bool, with_test: bool, training: bool, shares) -> None:
    data = dataset(120, labelled)
    test = dataset(50, True, start=1000) if with_test else None
    roles = assign_roles(data, test, MADE_UP, seed=0, training=training)
    parts = [numbers(roles.calibration), numbers(roles.selection), numbers(roles.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    if with_test:
        assert parts[2] == numbers(test)
        assert parts[0] | parts[1] == numbers(data)
    else:
        assert parts[0] | parts[1] | parts[2] == numbers(data)
    for part, share in zip(parts, shares, strict=True):
        if share is not None:
            assert abs(len(part) - share * 120) <= 3
    assert roles.notes == []


def test_few_samples_and_none_are_said() -> None:
    few = assign_roles(dataset(8, True), None, MADE_UP, seed=0)
    assert few.calibration is few.selection and few.test is None and "too few to split" in few.notes[0]
    none = assign_roles(None, dataset(20, True), MADE_UP, seed=0)
    assert none.calibration is None and none.selection is MADE_UP and none.test is not None
    assert "made-up inputs" in none.notes[0]
    assert set(none.describe()) == {"selection", "test"}
