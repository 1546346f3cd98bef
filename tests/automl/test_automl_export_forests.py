"""Forests of scikit-learn computed by onnxruntime: float32 features, sides for missing values, equal votes."""

import numpy as np
import pytest
from automl_export_oracle import agree, at_edges, computed
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor

from modelkit.automl.export.estimators import CannotExportError

CLASSIFIERS = {"random": RandomForestClassifier, "extra": ExtraTreesClassifier}
REGRESSORS = {"random": RandomForestRegressor, "extra": ExtraTreesRegressor}


def table(seed=0, rows=160, gaps=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    x[:, 1] = 16777216 + rng.integers(0, 40, rows)  # whole numbers that float32 cannot tell apart
    x[:, 2] = rng.integers(0, 3, rows) / 10  # float32 has no 0.1
    if gaps:
        x[rng.random(rows) < 0.25, 0] = np.nan
        x[rng.random(rows) < 0.25, 3] = np.nan
    y = np.nan_to_num(x[:, 0], nan=2.0) + x[:, 2] * 5 + (x[:, 1] % 7) / 3 + 0.3 * rng.normal(size=rows)
    return x, y, rng


@given(st.integers(0, 2**32), st.sampled_from(["random", "extra"]), st.integers(1, 4), st.booleans())
@settings(max_examples=20, deadline=None)
def test_probabilities(seed, kind, classes, gaps):
    x, y, rng = table(seed, gaps=gaps)
    labels = np.digitize(y, np.quantile(y, np.arange(1, classes) / classes))
    model = CLASSIFIERS[kind](6, max_depth=6, max_features=1, random_state=0).fit(x, labels)
    other = x.copy()
    if gaps:
        other[rng.random(len(x)) < 0.5, 0] = np.nan
        other[rng.random(len(x)) < 0.5, 3] = np.nan
    agree(model, x, at_edges(model, x, rng, 80), other)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("trees", [10, 49, 98, 150])
def test_equal_votes_stay_equal(classes, trees):
    """Of pure leaves, half of the votes for each of two classes must not become a choice by rounding."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3))
    model = ExtraTreesClassifier(trees, max_features=1, random_state=0).fit(x, rng.integers(classes, size=60))
    new = rng.normal(size=(4000, 3))
    got, want = computed(model, new), model.predict_proba(new)
    np.testing.assert_array_equal(got.argmax(axis=1), want.argmax(axis=1))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-15)
    if trees % 2 == 0:
        top = np.sort(want, axis=1)
        assert (top[:, -1] == top[:, -2]).sum() > 20


@pytest.mark.parametrize("criterion", ["squared_error", "absolute_error", "poisson"])
@pytest.mark.parametrize("kind", ["random", "extra"])
def test_predictions(kind, criterion):
    x, y, rng = table(gaps=criterion != "absolute_error")
    model = REGRESSORS[kind](7, criterion=criterion, random_state=0).fit(x, np.exp(y / 4))
    agree(model, x, at_edges(model, x, rng, 80))


def test_weights_and_monotone_constraints():
    x, y, rng = table(gaps=False)
    labels = (y > np.median(y)).astype(int)
    more = {"class_weight": "balanced", "monotonic_cst": [1, 0, 0, 0], "max_depth": 4, "random_state": 0}
    model = RandomForestClassifier(15, **more).fit(x, labels, sample_weight=rng.random(len(x)))
    agree(model, x, at_edges(model, x, rng, 80))


def test_several_targets_cannot_be_written():
    x, y, _ = table()
    for model in (RandomForestRegressor(3).fit(x, np.c_[y, y]), ExtraTreesClassifier(3).fit(x, np.c_[y > 0, y > 1])):
        with pytest.raises(CannotExportError, match="several targets"):
            computed(model, x)
