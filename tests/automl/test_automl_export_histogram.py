"""Histogram boosting computed by onnxruntime: sides for missing values, sets of categories, links."""

import numpy as np
import pytest
from automl_export_oracle import ODD, agree, at_edges, computed, with_odd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from modelkit.automl.export.estimators import CannotExportError

FAST = {"max_iter": 8, "min_samples_leaf": 3, "random_state": 0, "early_stopping": False}
FINITE = ODD[~np.isinf(ODD)]  # with categories, scikit-learn takes no infinities


def table(seed=0, rows=240, levels=9):
    """Three numbers and, in the second column, codes; y above 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    x[:, 1] = rng.integers(levels, size=rows)
    return x, np.exp((x[:, 0] + x[:, 2] ** 2 + (x[:, 1] % 3)) / 3), rng


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "quantile", "poisson", "gamma"])
def test_losses(loss):
    x, y, rng = table()
    model = HistGradientBoostingRegressor(loss=loss, quantile=0.3, **FAST).fit(x, y)
    agree(model, x, at_edges(model, x, rng), with_odd(x, range(4), rng))


@pytest.mark.parametrize("cuts", [[0.5], [0.3, 0.7], [0.2, 0.4, 0.6, 0.8]])
def test_infinities_and_gaps(cuts):
    x, y, rng = table()
    for column in range(4):
        x = with_odd(x, [column], rng, np.array([np.nan, np.inf, -np.inf]), 0.2)
    model = HistGradientBoostingClassifier(**FAST).fit(x, np.digitize(y, np.quantile(y, cuts)))
    agree(model, x, at_edges(model, x, rng), with_odd(x, range(4), rng))


@given(st.integers(0, 2**32), st.sampled_from([2, 12, 40, 120]), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_categories_and_gaps(seed, levels, gaps_in_numbers, gaps_in_codes, only_codes):
    x, y, rng = table(seed, 200, levels)
    x[:, 1] = np.sort(rng.choice(250, levels, replace=False))[x[:, 1].astype(int)]  # codes with holes
    x[:, 3] = rng.integers(3, size=len(x))
    y = y + rng.normal(size=250)[x[:, 1].astype(int)]
    if gaps_in_numbers:
        x[rng.random(len(x)) < 0.25, 0] = np.nan
    if gaps_in_codes:
        x[rng.random(len(x)) < 0.25, 1] = np.nan
    y = y + np.isnan(x[:, 0]) + np.isnan(x[:, 1])
    columns = [1, 3]
    if only_codes:
        x, columns = x[:, [1, 3]], [0, 1]
    model = HistGradientBoostingClassifier(categorical_features=columns, **FAST)
    model.fit(x, np.digitize(y, np.quantile(y, [0.3, 0.7])))
    agree(model, x, at_edges(model, x, rng, 60), with_odd(x, range(x.shape[1]), rng, FINITE))


@pytest.mark.parametrize("codes", [[-3.0, 0.0, 5.0], [0.5, 1.0, 2.0], [0.0, 1.0, 2.0**31]])
def test_codes_that_no_set_can_hold(codes):
    x, y, rng = table()
    x[:, 1] = rng.choice(codes, len(x))
    model = HistGradientBoostingRegressor(categorical_features=[1], **FAST).fit(x, y)
    with pytest.raises(CannotExportError, match="whole numbers"):
        computed(model, x)


def test_text_and_one_class_cannot_be_written():
    x, y, _ = table()
    text = np.array(["a", "b", "c"], object)[x[:, [1]].astype(int) % 3]
    model = HistGradientBoostingRegressor(categorical_features=[0], **FAST).fit(text, y)
    with pytest.raises(CannotExportError, match="text"):
        computed_text(model)
    with pytest.raises(CannotExportError, match="one class"):
        computed(HistGradientBoostingClassifier(**FAST).fit(x, np.zeros(len(x), int)), x)


def computed_text(model):
    from modelkit.automl.export.single import single

    return single(model, 1)
