"""Networks and support vector machines computed by onnxruntime, and what is refused."""

import numpy as np
import pytest
from automl_export_oracle import agree, computed
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC, SVR

from modelkit.automl.export.estimators import CannotExportError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 3))
Y = X[:, 0] + X[:, 1] ** 2
TWO, THREE = (Y > 0.7).astype(int), np.digitize(Y, [0.2, 1.2])
FAST = {"max_iter": 25, "random_state": 0, "hidden_layer_sizes": (12, 7)}


def calibrated(machine, **more):
    return CalibratedClassifierCV(machine, ensemble=False, cv=3, **more)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_networks(activation):
    for labels in (TWO, THREE):
        agree(MLPClassifier(activation=activation, **FAST).fit(X, labels), X, 1e3 * X)
    agree(MLPRegressor(activation=activation, **FAST).fit(X, Y), X, 1e3 * X)


def test_networks_of_counts():
    agree(MLPRegressor(loss="poisson", **FAST).fit(X, np.exp(Y / 3)), X)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_machines(offset):
    """An offset that is large beside the spread must not cost the digits of distances."""
    x = X + offset
    for model in (calibrated(SVC(gamma=1.0)).fit(x, TWO), SVR(gamma=1.0).fit(x, Y)):
        np.testing.assert_allclose(computed(model, x), _wanted(model, x), rtol=0, atol=1e-8)
        np.testing.assert_allclose(computed(model, x + 1e3), _wanted(model, x + 1e3), rtol=0, atol=1e-8)
    model = calibrated(OneVsRestClassifier(SVC())).fit(x, THREE)
    np.testing.assert_allclose(computed(model, x), model.predict_proba(x), rtol=0, atol=1e-8)


def test_machines_far_away():
    agree(calibrated(SVC()).fit(X, TWO), X, 1e150 * X)


def _wanted(model, x):
    return model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)[:, None]


BOTH = np.c_[Y, Y]
REFUSED = {
    "network of two targets": lambda: MLPRegressor(**FAST).fit(X, BOTH),
    "network of two labels": lambda: MLPClassifier(**FAST).fit(X, np.c_[TWO, TWO]),
    "network of three labels": lambda: MLPClassifier(**FAST).fit(X, np.c_[TWO, TWO, TWO]),
    "one against one": lambda: calibrated(SVC()).fit(X, THREE),
    "isotonic": lambda: calibrated(SVC(), method="isotonic").fit(X, TWO),
    "several machines": lambda: CalibratedClassifierCV(SVC(), cv=3).fit(X, TWO),
    "other than machines": lambda: calibrated(LogisticRegression()).fit(X, TWO),
    "polynomial": lambda: SVR(kernel="poly").fit(X, Y),
    "most frequent": lambda: DummyClassifier(strategy="most_frequent").fit(X, TWO),
    "drawn": lambda: DummyClassifier(strategy="stratified").fit(X, TWO),
    "constants of two targets": lambda: DummyRegressor().fit(X, BOTH),
    "linear of two targets": lambda: Ridge().fit(X, BOTH),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written(case):
    model = REFUSED[case]()
    with pytest.raises(CannotExportError):
        computed(model, X)
