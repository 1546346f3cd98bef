"""Differences between outputs, against plain numpy over the whole set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from modelkit.errors import DataError, ModelError
from modelkit.measure.fidelity import FidelityMeter


def measured(reference, candidate, size=7, **options):
    meter = FidelityMeter(["y"], **options)
    for start in range(0, len(reference), size):
        old, new = reference[start : start + size], candidate[start : start + size]
        pad_old, pad_new = np.full_like(old, 1)[:2], np.full_like(old, 9)[:2]
        meter.update([np.concatenate([old, pad_old])], [np.concatenate([new, pad_new])], len(old))
    return meter.result()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 40),
    classes=st.integers(2, 9),
    size=st.integers(1, 41),
    noise=st.sampled_from([1e-3, 0.1, 2.0]),
)
def test_against_numpy(seed, rows, classes, size, noise):
    rng = np.random.default_rng(seed)
    old = rng.normal(size=(rows, classes)).astype(np.float32)
    new = (old + rng.normal(size=old.shape) * noise).astype(np.float32)
    found = measured(old, new, size)
    a, b = old.astype(np.float64), new.astype(np.float64)
    error = np.abs(a - b)
    assert found["top1_agreement"] == np.mean(a.argmax(axis=1) == b.argmax(axis=1))
    assert found["sqnr_db"] == pytest.approx(10 * math.log10((a**2).sum() / (error**2).sum()))
    assert found["max_error"] == error.max()
    assert found["mean_error"] == pytest.approx(error.mean())
    p, q = special.softmax(a, axis=1), special.softmax(b, axis=1)
    assert found["kl"] == pytest.approx(special.rel_entr(p, q).sum(axis=1).mean(), abs=1e-12)
    assert found["non_finite"] == 0 and found["exact"] is False


def test_probabilities_are_compared_as_they_are():
    rng = np.random.default_rng(0)
    p, q = special.softmax(rng.normal(size=(2, 30, 4)), axis=-1)
    assert measured(p, q)["kl"] == pytest.approx(special.rel_entr(p, q).sum(axis=1).mean())


def test_the_same_outputs_are_exact():
    array = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    array[2, 1] = np.nan
    array[3, 1] = np.inf
    found = measured(array, array.copy())
    assert found["sqnr_db"] is None and found["exact"] is True
    assert found["max_error"] == found["mean_error"] == found["kl"] == found["non_finite"] == 0
    assert found["top1_agreement"] == 1.0


def test_numbers_that_went_bad_are_counted_and_disagree():
    old = np.eye(4, dtype=np.float32)
    new = old.copy()
    new[0, 0], new[1, 2] = np.nan, np.inf
    found = measured(old, new)
    assert found["non_finite"] == 2 and found["exact"] is False
    assert found["top1_agreement"] == 0.5
    assert found["max_error"] == 0 and found["sqnr_db"] is None
    assert all(value is None or math.isfinite(value) for value in found.values())


def test_bad_numbers_of_the_original_are_left_out():
    old = np.array([[np.nan, 1.0], [0.0, 1.0]])
    new = np.array([[0.0, 1.0], [0.0, 1.0]])
    found = measured(old, new)
    assert found["non_finite"] == 0 and found["top1_agreement"] == 1.0 and found["exact"] is False


def test_nothing_finite_is_not_exact():
    bad = np.full((4, 3), np.nan, np.float32)
    found = measured(bad, bad.copy())
    assert found["exact"] is False and found["finite_share"] == 0 and found["non_finite"] == 0
    half = np.array([[np.nan, 1.0], [0.0, 1.0]])
    assert measured(half, half.copy())["finite_share"] == 0.75


def test_silence_instead_of_signal():
    assert measured(np.zeros((2, 2)), np.ones((2, 2)))["sqnr_db"] == -999.0


def test_class_axes():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, 5, 4, 4))
    new = image + rng.normal(size=image.shape)
    expected = np.mean(image.argmax(axis=1) == new.argmax(axis=1))
    assert measured(image, new)["top1_agreement"] == pytest.approx(expected)
    sequence = image[:, :, :, 0]
    new = new[:, :, :, 0]
    by_shape = np.mean(sequence.argmax(axis=2) == new.argmax(axis=2))
    by_labels = np.mean(sequence.argmax(axis=1) == new.argmax(axis=1))
    assert measured(sequence, new)["top1_agreement"] == pytest.approx(by_shape)
    assert measured(sequence, new, axis=1)["top1_agreement"] == pytest.approx(by_labels)


def test_regression_has_no_classes():
    found = measured(np.ones((4, 3)), np.ones((4, 3)) * 2, classes=False)
    assert set(found) == {"sqnr_db", "exact", "max_error", "mean_error", "non_finite", "finite_share"}
    assert found["sqnr_db"] == 0


@pytest.mark.parametrize(
    ("old", "new", "share"),
    [
        ([0.2, 0.8, 0.6], [0.4, 0.9, 0.4], 2 / 3),
        ([-2.0, 0.3, 0.6], [-1.0, 0.1, -0.4], 2 / 3),
        ([0.2, 0.8], [np.nan, 0.9], 0.5),
    ],
)
def test_single_scores(old, new, share):
    old, new = np.array(old)[:, None], np.array(new)[:, None]
    assert measured(old, new, classes=True)["top1_agreement"] == pytest.approx(share)
    assert "top1_agreement" not in measured(old, new)  # without labels it may be a regression


def test_ids_and_words_agree_or_not():
    found = measured(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]))
    assert found["top1_agreement"] == 0.75 and found["exact"] is False and found["sqnr_db"] is None
    words = np.array(["a", "b"], dtype=object)
    meter = FidelityMeter(["y"])
    meter.update([words], [words], 2)
    assert meter.result()["exact"] is True


def test_several_outputs():
    meter = FidelityMeter(["logits", "hidden", "state"])
    logits, hidden, state = np.eye(3), np.ones((3, 8)), np.ones((2, 5))
    meter.update([logits, hidden, state], [logits, hidden * 1.1, state * 1.5], 2, rows=3)
    parts = meter.per_output()
    assert list(parts) == ["logits", "hidden", "state"]
    assert parts["logits"]["sqnr_db"] is None and parts["hidden"]["sqnr_db"] == pytest.approx(20)
    found = meter.result()
    assert found["sqnr_db"] == parts["state"]["sqnr_db"] and found["max_error"] == 0.5
    assert found["top1_agreement"] == 1.0 and found["exact"] is False


def test_errors():
    meter = FidelityMeter(["y"])
    with pytest.raises(DataError, match="no rows to compare outputs on"):
        meter.result()
    with pytest.raises(ModelError) as caught:
        meter.update([np.ones((2, 3))], [np.ones((2, 4))], 2)
    assert caught.value.message == "the output 'y' has the shape [2, 4]; the original's is [2, 3]"
