"""Which function writes which estimator: the one list that says what can be exported.

An exporter is ``export(model, graph, features) -> name``. ``features`` names a double [N, F], whose columns are those
that the estimator was fitted on; missing values are NaN there if the estimator takes them. The result is the name of
a double: probabilities [N, K] in the order of ``model.classes_``, or predictions [N, 1]. The nodes must compute what
``predict_proba`` or ``predict`` does on every row, with NaN and beyond the range of the training rows too; where an
estimator has options that its exporter does not know, it raises ``CannotExportError``.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from modelkit.automl.export.graph import Graph
from modelkit.errors import ModelError

EXPORTERS = {
    "DummyClassifier": "linear:constant_classes",
    "DummyRegressor": "linear:constant_value",
    "LogisticRegression": "linear:logistic",
    "Ridge": "linear:ridge",
    "ElasticNet": "linear:ridge",
    "Neighbors": "neighbors:mean",
    "CalibratedClassifierCV": "svm:classifier",
    "SVR": "svm:regressor",
    "MLPClassifier": "mlp:classifier",
    "MLPRegressor": "mlp:regressor",
    "ExtraTreesClassifier": "trees:forest_classifier",
    "ExtraTreesRegressor": "trees:forest_regressor",
    "RandomForestClassifier": "trees:forest_classifier",
    "RandomForestRegressor": "trees:forest_regressor",
    "HistGradientBoostingClassifier": "histogram:classifier",
    "HistGradientBoostingRegressor": "histogram:regressor",
    "LGBMClassifier": "lightgbm:classifier",
    "LGBMRegressor": "lightgbm:regressor",
}
"""Class name -> ``file:function`` in this package."""


class CannotExportError(ModelError):
    """An estimator that no exporter can write exactly."""


def export(model: Any, graph: Graph, features: str) -> str:
    """Write a fitted estimator as nodes.

    Args:
        model: Of a class in ``EXPORTERS``.
        graph: Where the nodes go.
        features: Name of its features, double [N, F].

    Returns:
        Name of the probabilities [N, K] or predictions [N, 1], double.

    Raises:
        CannotExportError: There is no exporter for it, or for how it was configured.
    """
    name = type(model).__name__
    if name not in EXPORTERS:
        raise CannotExportError(f"there is no exporter for {name}")
    file, _, function = EXPORTERS[name].partition(":")
    result: str = getattr(importlib.import_module(f"modelkit.automl.export.{file}"), function)(model, graph, features)
    return result


def can_export(model_class: str) -> bool:
    """Whether the exporter of a class is there."""
    file = EXPORTERS.get(model_class, "").partition(":")[0]
    return bool(file) and importlib.util.find_spec(f"modelkit.automl.export.{file}") is not None
