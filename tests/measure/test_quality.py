"""Metrics against scikit-learn, on batches cut anywhere."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from modelkit.errors import DataError, UsageError
from modelkit.measure.quality import QualityMeter, Task, detect_task, drop, primary


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def measured(task, output, labels, size=7):
    """Meter a whole set in batches of `size`, each padded with garbage rows."""
    meter = QualityMeter(task)
    for start in range(0, len(labels), size):
        out, known = output[start : start + size], labels[start : start + size]
        padded = np.concatenate([out, np.full_like(out, 5)[:3]])
        meter.update([padded, np.zeros(3)], known, len(known))
    return meter.result()


@pytest.mark.parametrize(
    ("shape", "dtype", "labels", "task"),
    [
        (("N", 10), np.float32, None, Task.none),
        (("N", 10), np.float32, np.array([0, 9, 3]), Task.classification),
        (("N", 10), np.float32, np.array([0.0, 9.0, 3.0]), Task.classification),
        ((1, 10), np.float32, np.zeros((3, 1), int), Task.classification),
        (("N", "C"), np.float16, np.array([0, 1]), Task.classification),
        (("N", 10, 1, 1), np.float32, np.array([0, 9]), Task.classification),
        (("N", 5, 8, 8), np.float32, np.zeros((2, 8, 8), int), Task.classification),
        (("N", "T", 5), np.float32, np.zeros((2, 4), int), Task.classification),
        (("N", 3), np.float32, np.eye(3)[[0, 2]], Task.classification),
        (("N",), np.int64, np.array([4, 2]), Task.classification),
        (("N",), np.object_, np.array(["cat", "dog"]), Task.classification),
        (("N", 1), np.float32, np.array([0, 1, 1]), Task.binary),
        (("N",), np.float32, np.array([True, False]), Task.binary),
        (("N", 1), ml_dtypes.bfloat16, np.array([[0.0], [1.0]]), Task.binary),
        (("N", 3), np.float32, np.array([[0, 1, 1], [1, 0, 0]]), Task.binary),
        (("N", 1), np.float32, np.array([0, 3, 7]), Task.regression),
        (("N", 1), np.float32, np.array([0.5, 3]), Task.regression),
        (("N", 2), np.float32, np.array([[0.5, 3], [1, 2]]), Task.regression),
        (("N",), np.int64, np.array([0.5, 1.5]), Task.regression),
    ],
)
def test_detect_task(shape, dtype, labels, task):
    assert detect_task(shape, np.dtype(dtype), labels) is task


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 60),
    classes=st.integers(2, 12),
    size=st.integers(1, 61),
    scale=st.sampled_from([0.01, 1.0, 30.0, 1000.0]),
)
def test_logits_against_scikit_learn(seed, rows, classes, size, scale):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * scale
    labels = rng.integers(0, classes, rows)
    found = measured(Task.classification, logits, labels, size)
    assert next(iter(found)) == "accuracy"
    assert found["accuracy"] == metrics.accuracy_score(labels, logits.argmax(axis=1))
    if classes > 5:
        expected = metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
        assert found["top5"] == pytest.approx(expected)
    else:
        assert "top5" not in found
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(rows), labels] - np.log(np.exp(shifted).sum(axis=1))
    assert found["log_loss"] == pytest.approx(np.minimum(-chosen, 708.4).mean(), rel=1e-4)
    if scale <= 1.0:
        loss = metrics.log_loss(labels, softmax(logits), labels=range(classes))
        assert found["log_loss"] == pytest.approx(loss)


def test_probabilities_against_scikit_learn():
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(size=(50, 4)) * 2)
    labels = rng.integers(0, 4, 50)
    found = measured(Task.classification, probabilities, labels)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, probabilities))
    single = measured(Task.classification, probabilities.astype(np.float16), labels)
    assert single["log_loss"] == pytest.approx(found["log_loss"], rel=1e-2)


def test_probabilities_only_if_every_batch_has_them():
    logits = np.array([[0.5, 0.5], [3.0, -1.0]])
    meter = QualityMeter(Task.classification)
    for row in logits:
        meter.update([row[None]], np.array([0]), 1)
    expected = -np.log(softmax(logits)[:, 0]).mean()
    assert meter.result()["log_loss"] == pytest.approx(expected)


def test_log_probabilities_and_masked_classes():
    rows = np.log(np.array([[0.7, 0.3, 1e-300], [0.2, 0.8, 1e-300]]))
    rows[:, 2] = -np.inf
    found = measured(Task.classification, rows, np.array([0, 1]))
    assert found["log_loss"] == pytest.approx(-(math.log(0.7) + math.log(0.8)) / 2)
    assert found["accuracy"] == 1.0
    assert math.isfinite(measured(Task.classification, rows, np.array([2, 2]))["log_loss"])


def test_rows_that_name_no_class_are_wrong_and_cost_a_lot():
    rows = np.array([[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf], [9.0, 0.0]])
    found = measured(Task.classification, rows, np.array([0, 0, 0, 0]))
    assert found["accuracy"] == 0.25
    assert 11 < found["log_loss"] < 13


def test_segmentation_and_sequences():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(9, 4, 5, 6)).astype(np.float32)
    labels = rng.integers(0, 4, (9, 5, 6))
    expected = float((scores.argmax(axis=1) == labels).mean())
    assert measured(Task.classification, scores, labels)["accuracy"] == pytest.approx(expected)
    last = np.moveaxis(scores, 1, -1)
    assert measured(Task.classification, last, labels)["accuracy"] == pytest.approx(expected)
    sequence, tags = scores[:, :, :, 0].transpose(0, 2, 1), labels[:, :, 0]
    expected = float((sequence.argmax(axis=-1) == tags).mean())
    assert measured(Task.classification, sequence, tags)["accuracy"] == pytest.approx(expected)
    square = rng.normal(size=(9, 4, 4))
    tags = square.argmax(axis=-1)
    assert measured(Task.classification, square, tags)["accuracy"] == 1.0


def test_ignored_positions_count_nowhere():
    scores = np.eye(3)[np.array([[0, 1, 2], [2, 1, 0]])]
    labels = np.array([[0, -100, 255], [2, -1, 1]])
    assert measured(Task.classification, scores, labels)["accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="a label is 7; the model has the classes 0 to 2"):
        measured(Task.classification, scores, np.array([[0, 7, 1], [0, 0, 0]]))


def test_one_hot_ids_and_strings():
    scores = np.array([[0.1, 2.0, 0.3], [3.0, 0.1, 0.2]])
    assert measured(Task.classification, scores, np.eye(3)[[1, 2]])["accuracy"] == 0.5
    assert measured(Task.classification, np.array([3, 4]), np.array([3, 5])) == {"accuracy": 0.5}
    words = np.array(["cat", "dog"], dtype=object)
    meter = QualityMeter(Task.classification)
    meter.update([words], np.array(["cat", "cat"]), 2)
    assert meter.result() == {"accuracy": 0.5}


@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("ties", [True, False])
def test_binary_against_scikit_learn(probabilities, ties):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(80, 1)) * 2
    if ties:
        logits = np.round(logits)
    labels = (rng.random(80) < 0.4).astype(int)
    chances = 1 / (1 + np.exp(-logits))
    found = measured(Task.binary, chances if probabilities else logits, labels)
    assert list(found) == ["accuracy", "auc", "log_loss"]
    assert found["accuracy"] == metrics.accuracy_score(labels, logits[:, 0] > 0)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, logits))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, chances))


def test_binary_odd_cases():
    assert "auc" not in measured(Task.binary, np.array([0.2, 0.9]), np.array([1, 1]))
    found = measured(Task.binary, np.array([np.nan, 0.9, -np.inf, 3.0]), np.array([1, 1, 1, 1]))
    assert found["accuracy"] == 0.5 and math.isfinite(found["log_loss"])
    labels = np.array([[0, 1, 1], [1, 0, 0]])
    assert measured(Task.binary, labels * 2.0 - 1, labels)["accuracy"] == 1.0
    with pytest.raises(DataError, match="a label is 2; expected 0 or 1 for a single-score output"):
        measured(Task.binary, np.array([0.1, 0.2]), np.array([0, 2]))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 50),
    targets=st.integers(1, 4),
    size=st.integers(1, 51),
    offset=st.sampled_from([0.0, 1e6]),
)
def test_regression_against_scikit_learn(seed, rows, targets, size, offset):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(rows, targets)) + offset
    guess = truth + rng.normal(size=truth.shape)
    found = measured(Task.regression, guess, truth, size)
    assert list(found) == ["rmse", "r2", "mae"]
    assert found["rmse"] == pytest.approx(math.sqrt(metrics.mean_squared_error(truth, guess)))
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, guess), rel=1e-6, abs=1e-6)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, guess))


def test_regression_odd_cases():
    flat = measured(Task.regression, np.array([[1.0, 2.0], [1.0, 3.0]]), np.array([[1.0, 2.0], [1.0, 2.0]]))
    assert flat["r2"] == metrics.r2_score([[1, 2], [1, 2]], [[1, 2], [1, 3]])
    broken = measured(Task.regression, np.array([[np.nan], [1.0]]), np.array([0.5, 1.0]))
    assert broken == {"rmse": math.inf, "r2": -math.inf, "mae": math.inf}
    meter = QualityMeter(Task.regression)
    meter.update([np.ones((2, 3))], np.ones((2, 3)), 2)
    with pytest.raises(DataError, match="the number of targets in a row changes from batch to batch"):
        meter.update([np.ones((2, 4))], np.ones((2, 4)), 2)


@pytest.mark.parametrize(
    ("task", "output", "labels", "message"),
    [
        (
            Task.classification,
            np.ones((2, 3)),
            np.zeros((2, 4), int),
            "labels of shape [2, 4] do not fit the model's first output of shape [2, 3]",
        ),
        (
            Task.regression,
            np.ones((2, 3)),
            np.ones(2),
            "labels of shape [2] do not fit the model's first output of shape [2, 3]",
        ),
        (
            Task.classification,
            np.ones((2, 3)),
            np.array([0, 3]),
            "a label is 3; the model has the classes 0 to 2",
        ),
        (
            Task.classification,
            np.ones((2, 3)),
            np.array([-1, 1]),
            "a label is -1; the model has the classes 0 to 2",
        ),
        (
            Task.classification,
            np.ones((2, 3)),
            np.array([0.5, 1]),
            "a label is not a whole number; expected class ids",
        ),
        (
            Task.classification,
            np.ones((2, 3)),
            np.array(["a", "b"]),
            "labels are of type <U1; expected class ids as whole numbers",
        ),
    ],
)
def test_labels_that_do_not_fit(task, output, labels, message):
    with pytest.raises(DataError) as caught:
        QualityMeter(task).update([output], labels, 2)
    assert caught.value.message == message


def test_primary_and_drop():
    assert primary(Task.classification) == primary(Task.binary) == ("accuracy", True)
    assert primary(Task.regression) == ("rmse", False)
    assert drop({"accuracy": 0.9}, {"accuracy": 0.85}, Task.classification) == pytest.approx(0.05)
    assert drop({"accuracy": 0.9}, {"accuracy": 0.95}, Task.binary) == pytest.approx(-0.05)
    assert drop({"rmse": 2.0}, {"rmse": 2.1}, Task.regression) == pytest.approx(0.05)
    assert drop({"rmse": 0.0}, {"rmse": 0.0}, Task.regression) == 0
    assert drop({"rmse": 0.0}, {"rmse": 0.1}, Task.regression) == math.inf
    assert drop({"rmse": 1.0}, {"rmse": math.inf}, Task.regression) == math.inf
    for call in (lambda: primary(Task.none), lambda: QualityMeter(Task.none)):
        with pytest.raises(UsageError, match="there is no quality without labels"):
            call()


def test_nothing_measured():
    with pytest.raises(DataError, match="no labelled rows to measure quality on"):
        QualityMeter(Task.classification).result()
