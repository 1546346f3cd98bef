"""Linear models computed by onnxruntime are those of scikit-learn."""

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from modelkit.automl.export.single import single


def computed(model, x):
    session = ort.InferenceSession(single(model, x.shape[1]).SerializeToString())
    return session.run(None, {"features": np.asarray(x, float)})[0]


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
def test_probabilities_of_logistic_regression(load):
    x, y = load(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    model = LogisticRegression(C=0.5, max_iter=500).fit(x, y)
    np.testing.assert_allclose(computed(model, x), model.predict_proba(x), rtol=0, atol=1e-12)
    np.testing.assert_allclose(computed(model, 1e4 * x), model.predict_proba(1e4 * x), rtol=0, atol=1e-12)


def test_predictions_of_ridge():
    x, y = load_diabetes(return_X_y=True)
    model = Ridge(alpha=0.1).fit(x, y)
    np.testing.assert_allclose(computed(model, x)[:, 0], model.predict(x), rtol=1e-12)


def test_constants_for_any_features():
    x, y = load_wine(return_X_y=True)
    model = DummyClassifier(strategy="prior").fit(x, y)
    np.testing.assert_allclose(computed(model, np.full((3, 13), np.nan)), model.predict_proba(x[:3]), rtol=1e-15)
    regressor = DummyRegressor().fit(x, x[:, 0])
    np.testing.assert_allclose(computed(regressor, x)[:, 0], regressor.predict(x), rtol=1e-15)
