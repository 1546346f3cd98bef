"""LightGBM computed by onnxruntime: its sides for missing values, sets of categories, links, and what is refused."""

import lightgbm
import numpy as np
import pytest
from automl_export_oracle import ODD, agree, at_edges, computed, with_odd
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.automl.export.estimators import CannotExportError

FAST = {"verbose": -1, "n_estimators": 15, "n_jobs": 1, "min_child_samples": 3, "random_state": 0}


def table(seed=0, rows=240, levels=9):
    """Three numbers, one of them in part exactly 0 and tiny, and one column of codes; y above 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    x[:, 2] = rng.choice([0.0, 1e-36, -1e-36, 1e-35, 2e-35, 1.0, -1.0], rows)
    x[:, 3] = rng.integers(levels, size=rows)
    y = np.exp((x[:, 0] + x[:, 1] ** 2 + x[:, 2] + (x[:, 3] % 3)) / 3)
    return x, y, rng


@pytest.mark.parametrize("target", ["value", "two", "three"])
@pytest.mark.parametrize("boosting", ["gbdt", "dart", "rf"])
def test_kinds_of_boosting(boosting, target):
    x, y, rng = table()
    more = {"boosting_type": boosting, **FAST}
    if boosting == "rf":
        more.update(subsample=0.6, subsample_freq=1)
    if target == "value":
        model = lightgbm.LGBMRegressor(**more).fit(x, y)
    else:
        model = lightgbm.LGBMClassifier(**more).fit(x, np.digitize(y, np.quantile(y, [0.5, 0.8][: len(target) // 2])))
        assert len(model.classes_) == {"two": 2, "three": 3}[target]
    agree(model, x, at_edges(model, x, rng), with_odd(x, range(4), rng))


LINKS = ["regression", "regression_l1", "huber", "fair", "quantile", "mape", "poisson", "gamma", "tweedie"]


@pytest.mark.parametrize("objective", LINKS)
def test_links(objective):
    x, y, rng = table()
    agree(lightgbm.LGBMRegressor(objective=objective, **FAST).fit(x, y), x, with_odd(x, range(4), rng))


def test_square_roots():
    x, y, _ = table()
    agree(lightgbm.LGBMRegressor(reg_sqrt=True, **FAST).fit(x, y - 2), x)


def test_scaled_sigmoid_and_early_stopping():
    x, y, _ = table()
    labels = (y > np.median(y)).astype(int)
    model = lightgbm.LGBMClassifier(**{**FAST, "n_estimators": 300}, sigmoid=2.5)
    stop = lightgbm.early_stopping(3, verbose=False)
    model.fit(x[:150], labels[:150], eval_X=x[150:], eval_y=labels[150:], callbacks=[stop])
    assert model.best_iteration_ < 290
    agree(model, x)


@pytest.mark.parametrize("case", ["no splits", "one class"])
def test_trees_of_one_leaf(case):
    x, y, _ = table()
    labels = np.zeros(len(x), int) if case == "one class" else (y > np.median(y)).astype(int)
    agree(lightgbm.LGBMClassifier(**FAST).fit(x * 0, labels), x)
    agree(lightgbm.LGBMRegressor(**FAST).fit(x * 0, y), x)


@given(st.integers(0, 2**32), st.sampled_from([3, 12, 40, 90]), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_categories_and_gaps(seed, levels, gaps_in_numbers, gaps_in_codes, one_hot):
    x, y, rng = table(seed, 150, levels)
    if gaps_in_numbers:
        x[rng.random(len(x)) < 0.25, 0] = np.nan
    if gaps_in_codes:
        x[rng.random(len(x)) < 0.25, 3] = rng.choice([np.nan, -1.0])
    y = y + rng.normal(size=levels)[np.nan_to_num(x[:, 3]).astype(int)] + np.isnan(x[:, 0])
    labels = np.digitize(y, np.quantile(y, [0.3, 0.7]))
    more = {"cat_smooth": 1, "cat_l2": 1, "min_data_per_group": 1, "max_cat_to_onehot": 100 if one_hot else 1}
    model = lightgbm.LGBMClassifier(**{**FAST, "n_estimators": 5}, **more)
    model.fit(x, labels, categorical_feature=[3])
    agree(model, x, at_edges(model, x, rng, 60), with_odd(x, range(4), rng, ODD))


@pytest.mark.parametrize("more", [{"linear_tree": True}, {"zero_as_missing": True}, {"objective": "cross_entropy"}])
def test_what_cannot_be_written(more):
    x, y, rng = table()
    x[rng.random(x.shape) < 0.3] = 0
    model = lightgbm.LGBMRegressor(**FAST, **more).fit(x, y / y.max())
    with pytest.raises(CannotExportError):
        computed(model, x)


def test_functions_as_objectives_cannot_be_written():
    x, y, _ = table()
    model = lightgbm.LGBMRegressor(objective=lambda y, p: (p - y, np.ones_like(y)), **FAST).fit(x, y)
    with pytest.raises(CannotExportError, match="custom"):
        computed(model, x)
    with pytest.raises(CannotExportError, match="multiclassova"):
        computed(lightgbm.LGBMClassifier(objective="multiclassova", **FAST).fit(x, np.digitize(y, [1, 2])), x)
